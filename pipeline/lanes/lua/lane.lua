-- Put in front of every script: names, the clock, and how a lane waits for its turn.
-- KEYS[1] is <deployment>:<consumer>; everything else follows from it, so one Redis node holds a consumer.
local ns = KEYS[1]
local READY, RETRIES, FAILING = ns .. ':ready', ns .. ':retries', ns .. ':failing'
local SNAPSHOT_READY, SNAPSHOT_RETRIES = ns .. ':snapshot_ready', ns .. ':snapshot_retries'
local LEASES, BREAKER, BELL = ns .. ':leases', ns .. ':breaker', ns .. ':bell'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Of lanes of Celery tasks, which come from no partition: nobody reads their acknowledgements.
local NO_PARTITION = '-1'

-- True for a lane that a bridge feeds.
local function is_fed(partition) return partition and partition ~= NO_PARTITION end

-- A lane is named after its merchant, s.<merchant> when it holds rows that a snapshot read.
local function is_snapshot(name) return string.sub(name, 1, 2) == 's.' end
local function lane_key(name) return ns .. ':lane:' .. name end
local function list_key(name) return ns .. (is_snapshot(name) and '.' or '.m.') .. name end
local function turn_key(token) return ns .. ':turn:' .. token end

-- Failing lanes wait apart, so that healthy ones are grouped without stepping over them; lanes of snapshots wait apart
-- from live ones, so that these go first.
local function waiting_room(name, failures)
  if is_snapshot(name) then return failures > 0 and SNAPSHOT_RETRIES or SNAPSHOT_READY end
  return failures > 0 and RETRIES or READY
end

local function wait_for_turn(name, failures, due)
  redis.call('ZADD', waiting_room(name, failures), 'LT', due, name)
end

-- A claim is void once its lease is gone: nobody can acknowledge by it any more.
local function is_claimed(claim)
  return claim and claim ~= '' and redis.call('ZSCORE', LEASES, claim)
end

-- One element at most: the bell wakes one idle worker, which rings on if more is due.
local function ring()
  if redis.call('EXISTS', BELL) == 0 then redis.call('LPUSH', BELL, '1') end
end

-- nil: somebody else has pushed it. No offset has more than fifteen digits.
local function offset_of(entry)
  local digits = string.match(entry, '^(%d+)\n')
  return digits and #digits < 16 and tonumber(digits) or nil
end

-- The list must end at what was enqueued: a list or a field that Redis forgot shows here.
local function is_sound(list, enqueued, acknowledged)
  if not enqueued or not acknowledged then return false end
  local tail = redis.call('LINDEX', list, -1)
  return (tail and offset_of(tail) or acknowledged) == enqueued
end

local function check_epoch(epoch)
  if redis.call('GET', ns .. ':epoch') ~= epoch then return redis.error_reply('EPOCHLOST the lanes were emptied') end
end

local function check_fence(partition, fence)
  local seen = tonumber(redis.call('HGET', ns .. ':fences', partition) or 0)
  if tonumber(fence) < seen then return redis.error_reply('FENCED partition ' .. partition .. ' has a newer bridge') end
end

-- A newer bridge is told by each lane how it stands when it appends to it: news from before are of no use.
local function take_hold(partition, fence)
  if redis.call('HGET', ns .. ':fences', partition) == fence then return end
  redis.call('HSET', ns .. ':fences', partition, fence)
  redis.call('DEL', ns .. ':news:' .. partition)
end

local function drop_lease(token)
  redis.call('DEL', turn_key(token))
  redis.call('ZREM', LEASES, token)
  if redis.call('HGET', BREAKER, 'probe') == token then redis.call('HDEL', BREAKER, 'probe') end
end

-- Take the lease of a turn away and open the lanes that it still holds: open(name, failures, partition).
local function end_turn(token, open)
  for _, name in ipairs(redis.call('LRANGE', turn_key(token), 0, -1)) do
    local fields = redis.call('HMGET', lane_key(name), 'claim', 'failures', 'partition')
    if fields[1] == token then open(name, tonumber(fields[2]) or 0, fields[3]) end
  end
  drop_lease(token)
end
