#!lua flags=allow-oom
-- RESET: empty a damaged lane; everything up to base counts as enqueued and acknowledged.
-- ARGV: epoch, partition, fence, name, base.
local partition, fence, name, base = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local refusal = check_epoch(ARGV[1]) or check_fence(partition, fence)
if refusal then return refusal end
redis.call('HSET', ns .. ':fences', partition, fence)
redis.call('DEL', list_key(name), lane_key(name))
redis.call('HSET', lane_key(name), 'partition', partition, 'enqueued', base, 'acknowledged', base)
redis.call('ZREM', waiting_room(name, 0), name)
redis.call('ZREM', waiting_room(name, 1), name)
redis.call('SREM', FAILING, name)
return redis.status_reply('OK')
