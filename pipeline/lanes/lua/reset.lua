#!lua flags=allow-oom
-- RESET: make a lane of a lower incarnation, or none, this one: empty, everything up to base enqueued and acknowledged.
-- One of this incarnation stays as it is. ARGV: epoch, partition, fence, name, incarnation, base.
-- Returns what ADD returns of a lane.
local partition, fence, name, base = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[6])
local refusal = check_epoch(ARGV[1]) or check_fence(partition, fence)
if refusal then return refusal end
take_hold(partition, fence)
local lane, list, incarnation = lane_key(name), list_key(name), tonumber(ARGV[5])
local state = redis.call('HMGET', lane, 'incarnation', 'partition', 'enqueued', 'acknowledged', 'parked')
local own = tonumber(state[1])
if own and own >= incarnation then
  local enqueued, acknowledged = tonumber(state[3]), tonumber(state[4])
  if own > incarnation or state[2] ~= partition or not is_sound(list, enqueued, acknowledged) then
    return {enqueued or -1, acknowledged or -1, own, 1, false}
  end
  return {enqueued, acknowledged, own, 0, state[5]}
end
redis.call('DEL', list, lane)
redis.call('HSET', lane, 'partition', partition, 'incarnation', ARGV[5], 'enqueued', ARGV[6], 'acknowledged', ARGV[6])
redis.call('ZREM', waiting_room(name, 0), name)
redis.call('ZREM', waiting_room(name, 1), name)
redis.call('SREM', FAILING, name)
return {base, base, incarnation, 0, false}
