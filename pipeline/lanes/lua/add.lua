#!lua
-- ADD: append events to their lanes and tell how each lane stands. Without allow-oom: refused whole when memory is full.
-- ARGV: epoch, linger, events that make a lane due, number of fences, (partition, fence)*,
--       (name, partition, previous or '', number of entries, first offset, entry*)*
-- Returns enqueued, acknowledged, damaged (0 or 1) per lane.
local LINGER, EVENTS = tonumber(ARGV[2]), tonumber(ARGV[3])
local i = 5

local refusal = check_epoch(ARGV[1])
if refusal then return refusal end
for _ = 1, tonumber(ARGV[4]) do
  refusal = check_fence(ARGV[i], ARGV[i + 1])
  if refusal then return refusal end
  i = i + 2
end
for f = 5, i - 1, 2 do redis.call('HSET', ns .. ':fences', ARGV[f], ARGV[f + 1]) end

local function follows(enqueued, previous, start, count)
  if previous == '' or tonumber(previous) == enqueued then return true end
  for k = start, start + count - 1 do
    if offset_of(ARGV[k]) == enqueued then return true end
  end
  return false
end

-- The list must end at what was enqueued: a list or a field that Redis forgot shows here.
local function is_sound(list, enqueued, acknowledged)
  if not enqueued or not acknowledged then return false end
  local tail = redis.call('LINDEX', list, -1)
  return (tail and offset_of(tail) or acknowledged) == enqueued
end

local function append(list, enqueued, start, count)
  local from, stop = start, start + count - 1
  while from <= stop and offset_of(ARGV[from]) <= enqueued do from = from + 1 end
  for k = from, stop, 1000 do redis.call('RPUSH', list, unpack(ARGV, k, math.min(stop, k + 999))) end
  return from <= stop
end

local function earliest(set)
  return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]) or math.huge
end

-- A worker with nothing to do rests until the earliest lane it has seen is due: an earlier one rings.
local rings, known = false, {}
local function wake(lane, name, state, length)
  if is_claimed(state[4]) then
    if LINGER > 0 then redis.call('HSETNX', lane, 'linger_until', now + LINGER) end
    return
  end
  if state[4] and state[4] ~= '' then redis.call('HSET', lane, 'claim', '') end
  if length == 0 then return end
  local due = math.max(length >= EVENTS and now or now + LINGER, tonumber(state[6]) or 0)
  local failures = tonumber(state[5]) or 0
  local set = waiting_room(name, failures)
  if LINGER > 0 and failures == 0 and not known[set] then known[set] = earliest(set) end
  wait_for_turn(name, failures, due)
  rings = rings or due <= now
end

local function add(name, partition, previous, count, first, start)
  local lane, list = lane_key(name), list_key(name)
  local state = redis.call('HMGET', lane, 'partition', 'enqueued', 'acknowledged', 'claim', 'failures', 'not_before')
  local enqueued, acknowledged = tonumber(state[2]), tonumber(state[3])
  if not (state[1] or enqueued or acknowledged) and redis.call('EXISTS', list) == 0 then
    if previous ~= '' then return -1, -1, 1 end
    if count == 0 then return -1, -1, 0 end
    enqueued, acknowledged = first - 1, first - 1
    redis.call('HSET', lane, 'partition', partition, 'enqueued', enqueued, 'acknowledged', acknowledged)
  elseif state[1] ~= partition or not is_sound(list, enqueued, acknowledged)
      or not follows(enqueued, previous, start, count) then
    return enqueued or -1, acknowledged or -1, 1
  end
  if count > 0 and append(list, enqueued, start, count) then
    enqueued = offset_of(ARGV[start + count - 1])
    redis.call('HSET', lane, 'enqueued', enqueued)
  end
  wake(lane, name, state, redis.call('LLEN', list))
  return enqueued, acknowledged, 0
end

local out = {}
while i <= #ARGV do
  local count = tonumber(ARGV[i + 3])
  local enqueued, acknowledged, damaged =
    add(ARGV[i], ARGV[i + 1], ARGV[i + 2], count, tonumber(ARGV[i + 4]), i + 5)
  out[#out + 1], out[#out + 2], out[#out + 3] = enqueued, acknowledged, damaged
  i = i + 5 + count
end
for set, before in pairs(known) do rings = rings or earliest(set) < before end
if rings then ring() end
return out
