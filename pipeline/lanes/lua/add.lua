#!lua
-- ADD: append events to their lanes and tell how each lane stands. Without allow-oom: refused whole when memory is full.
-- ARGV: epoch, linger, events that make a lane due, number of tenures, (partition, fence, highest incarnation drawn)*,
--       (name, partition, incarnation or '', previous or '', number of entries, first offset, entry*)*
-- Returns enqueued, acknowledged, incarnation, damaged (0 or 1), why it is parked (or nil) per lane.
local LINGER, EVENTS = tonumber(ARGV[2]), tonumber(ARGV[3])
local i = 5

local refusal = check_epoch(ARGV[1])
if refusal then return refusal end
local drawn = {}
for _ = 1, tonumber(ARGV[4]) do
  refusal = check_fence(ARGV[i], ARGV[i + 1])
  if refusal then return refusal end
  drawn[ARGV[i]] = ARGV[i + 2]
  i = i + 3
end
for f = 5, i - 1, 3 do redis.call('HSET', ns .. ':fences', ARGV[f], ARGV[f + 1]) end

local function follows(enqueued, previous, start, count)
  if previous == '' or tonumber(previous) == enqueued then return true end
  for k = start, start + count - 1 do
    if offset_of(ARGV[k]) == enqueued then return true end
  end
  return false
end

-- One that the bridge did not name may be adopted, unless it is younger than the bridge's hold of the partition.
local function is_meant(own, named, partition)
  if not own then return false end
  if named ~= '' then return own == tonumber(named) end
  return own <= tonumber(drawn[partition])
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

local function add(name, partition, named, previous, count, first, start)
  local lane, list = lane_key(name), list_key(name)
  local state = redis.call('HMGET', lane, 'partition', 'enqueued', 'acknowledged', 'claim', 'failures', 'not_before',
    'incarnation', 'parked')
  local enqueued, acknowledged, own = tonumber(state[2]), tonumber(state[3]), tonumber(state[7])
  if not (state[1] or enqueued or acknowledged or own) and redis.call('EXISTS', list) == 0 then
    if previous ~= '' or named ~= '' then return -1, -1, -1, 1, false end
    if count == 0 then return -1, -1, -1, 0, false end
    enqueued, acknowledged, own = first - 1, first - 1, tonumber(drawn[partition])
    redis.call('HSET', lane, 'partition', partition, 'incarnation', drawn[partition],
      'enqueued', enqueued, 'acknowledged', acknowledged)
  elseif state[1] ~= partition or not is_meant(own, named, partition) or not is_sound(list, enqueued, acknowledged)
      or not follows(enqueued, previous, start, count) then
    return enqueued or -1, acknowledged or -1, own or -1, 1, false
  end
  local length = append(list, enqueued, start, count)
  if length then
    enqueued = offset_of(ARGV[start + count - 1])
    redis.call('HSET', lane, 'enqueued', enqueued)
  end
  if not state[8] then wake(lane, name, state, length or redis.call('LLEN', list)) end
  return enqueued, acknowledged, own, 0, state[8]
end

local out = {}
while i <= #ARGV do
  local count = tonumber(ARGV[i + 4])
  local enqueued, acknowledged, own, damaged, parked =
    add(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], count, tonumber(ARGV[i + 5]), i + 6)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = enqueued, acknowledged, own, damaged, parked
  i = i + 6 + count
end
for set, before in pairs(known) do rings = rings or earliest(set) < before end
if rings then ring() end
return out
