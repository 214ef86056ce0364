#!lua flags=allow-oom
-- RESET: empty a damaged lane; everything up to base counts as enqueued and acknowledged.
-- ARGV: epoch, partition, fence, merchant, base.
local partition, fence, merchant, base = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local refusal = check_epoch(ARGV[1]) or check_fence(partition, fence)
if refusal then return refusal end
redis.call('HSET', ns .. ':fences', partition, fence)
redis.call('DEL', list_key(merchant), lane_key(merchant))
redis.call('HSET', lane_key(merchant), 'partition', partition, 'enqueued', base, 'acknowledged', base)
redis.call('ZREM', READY, merchant)
redis.call('ZREM', RETRIES, merchant)
redis.call('SREM', FAILING, merchant)
return redis.status_reply('OK')
