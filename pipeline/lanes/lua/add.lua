#!lua
-- ADD: append events to their lanes and tell how each lane stands. Without allow-oom: refused whole when memory is full.
-- ARGV: epoch, linger, events that make a lane due, number of tenures, (partition, fence, highest incarnation drawn)*,
--       lanes, entry*; lanes are packed: each partition, incarnation or -2, previous or -2, number of entries, name
-- Returns lanes packed: each enqueued, acknowledged, incarnation, damaged (1) and parked (2); then why each is parked.
local LINGER, EVENTS = tonumber(ARGV[2]), tonumber(ARGV[3])
local UNKNOWN = -2 -- a lane made for a partition's first record ends at -1
local i = 5

local refusal = check_epoch(ARGV[1])
if refusal then return refusal end
local drawn = {}
for _ = 1, tonumber(ARGV[4]) do
  refusal = check_fence(ARGV[i], ARGV[i + 1])
  if refusal then return refusal end
  drawn[tonumber(ARGV[i])] = tonumber(ARGV[i + 2])
  i = i + 3
end
for f = 5, i - 1, 3 do take_hold(ARGV[f], ARGV[f + 1]) end

local function follows(enqueued, previous, start, count)
  if previous == UNKNOWN or previous == enqueued then return true end
  for k = start, start + count - 1 do
    if offset_of(ARGV[k]) == enqueued then return true end
  end
  return false
end

-- One that the bridge did not name may be adopted, unless it is younger than the bridge's hold of the partition.
local function is_meant(own, named, partition)
  if not own then return false end
  if named ~= UNKNOWN then return own == named end
  return own <= drawn[partition]
end

-- Returns how long the list is now, nil when nothing was new.
local function append(list, enqueued, start, count)
  local from, stop, length = start, start + count - 1, nil
  while from <= stop and offset_of(ARGV[from]) <= enqueued do from = from + 1 end
  for k = from, stop, 1000 do length = redis.call('RPUSH', list, unpack(ARGV, k, math.min(stop, k + 999))) end
  return length
end

local function earliest(set)
  return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]) or math.huge
end

-- A worker with nothing to do rests until the earliest lane it has seen is due: an earlier one rings.
local rings, known, waits = false, {}, {}
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
  local waiting = waits[set] or {}
  waits[set] = waiting
  waiting[#waiting + 1], waiting[#waiting + 2] = due, name
  rings = rings or due <= now
end

local function add(name, partition, named, previous, count, start)
  local lane, list = lane_key(name), list_key(name)
  local state = redis.call('HMGET', lane, 'partition', 'enqueued', 'acknowledged', 'claim', 'failures', 'not_before',
    'incarnation', 'parked')
  local enqueued, acknowledged, own = tonumber(state[2]), tonumber(state[3]), tonumber(state[7])
  if not (state[1] or enqueued or acknowledged or own) and redis.call('EXISTS', list) == 0 then
    if previous ~= UNKNOWN or named ~= UNKNOWN then return -1, -1, -1, true, false end
    if count == 0 then return -1, -1, -1, false, false end
    enqueued, own = offset_of(ARGV[start]) - 1, drawn[partition]
    acknowledged = enqueued
    redis.call('HSET', lane, 'partition', partition, 'incarnation', own, 'enqueued', enqueued,
      'acknowledged', acknowledged)
  elseif tonumber(state[1]) ~= partition or not is_meant(own, named, partition)
      or not is_sound(list, enqueued, acknowledged) or not follows(enqueued, previous, start, count) then
    return enqueued or -1, acknowledged or -1, own or -1, true, false
  end
  local length = append(list, enqueued, start, count)
  if length then
    enqueued = offset_of(ARGV[start + count - 1])
    redis.call('HSET', lane, 'enqueued', enqueued)
  end
  if not state[8] then wake(lane, name, state, length or redis.call('LLEN', list)) end
  return enqueued, acknowledged, own, false, state[8]
end

local lanes, at, answers, out = ARGV[i], 1, {}, {''}
i = i + 1
while at <= #lanes do
  local partition, named, previous, count, name
  partition, named, previous, count, name, at = struct.unpack('<i4i8i8I4I2c0', lanes, at)
  local enqueued, acknowledged, own, damaged, parked = add(name, partition, named, previous, count, i)
  answers[#answers + 1] =
    struct.pack('<i8i8i8B', enqueued, acknowledged, own, (damaged and 1 or 0) + (parked and 2 or 0))
  if parked then out[#out + 1] = parked end
  i = i + count
end
for set, waiting in pairs(waits) do
  for k = 1, #waiting, 1000 do
    redis.call('ZADD', set, 'LT', unpack(waiting, k, math.min(#waiting, k + 999)))
  end
end
for set, before in pairs(known) do rings = rings or earliest(set) < before end
if rings then ring() end
out[1] = table.concat(answers)
return out
