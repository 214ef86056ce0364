#!lua
-- SEND: put one Celery message at the end of a merchant's lane of tasks. Without allow-oom, as ADD.
-- ARGV: name, id of the message, message. Returns the number of the message in its lane.
-- There is no bridge to repair these lanes, so whatever Redis has forgotten of one is drawn from its list again.
local name, id = ARGV[1], ARGV[2]
local lane, list = lane_key(name), list_key(name)
local state = redis.call('HMGET', lane, 'enqueued', 'sent', 'claim', 'failures', 'not_before')
local tail = redis.call('LINDEX', list, -1)
local number = math.max(tonumber(state[1]) or 0, tail and offset_of(tail) or 0)
if state[2] ~= id then -- else: a call that got no answer is repeated
  number = number + 1
  redis.call('RPUSH', list, string.format('%.0f', number) .. '\n' .. ARGV[3])
  redis.call('HSET', lane, 'partition', NO_PARTITION, 'enqueued', string.format('%.0f', number), 'sent', id)
end
if not is_claimed(state[3]) then
  if state[3] and state[3] ~= '' then redis.call('HSET', lane, 'claim', '') end
  wait_for_turn(name, tonumber(state[4]) or 0, math.max(now, tonumber(state[5]) or 0))
  ring()
end
return number
