-- Put in front of every script: names, the clock, and how a lane waits for its turn.
-- KEYS[1] is <deployment>:<consumer>; everything else follows from it, so one Redis node holds a consumer.
local ns = KEYS[1]
local READY, RETRIES, FAILING = ns .. ':ready', ns .. ':retries', ns .. ':failing'
local LEASES, BREAKER, BELL = ns .. ':leases', ns .. ':breaker', ns .. ':bell'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function lane_key(merchant) return ns .. ':lane:' .. merchant end
local function list_key(merchant) return ns .. '.m.' .. merchant end
local function turn_key(token) return ns .. ':turn:' .. token end

-- Failing lanes wait apart, so that healthy ones are grouped without stepping over them.
local function wait_for_turn(merchant, failures, due)
  redis.call('ZADD', failures > 0 and RETRIES or READY, 'LT', due, merchant)
end

-- A claim is void once its lease is gone: nobody can acknowledge by it any more.
local function is_claimed(claim)
  return claim and claim ~= '' and redis.call('ZSCORE', LEASES, claim)
end

-- One element at most: the bell wakes one idle worker, which rings on if more is due.
local function ring()
  if redis.call('EXISTS', BELL) == 0 then redis.call('LPUSH', BELL, '1') end
end

local function offset_of(entry) return tonumber(string.match(entry, '^(%d+)\n')) end

local function check_epoch(epoch)
  if redis.call('GET', ns .. ':epoch') ~= epoch then return redis.error_reply('EPOCHLOST the lanes were emptied') end
end

local function check_fence(partition, fence)
  local seen = tonumber(redis.call('HGET', ns .. ':fences', partition) or 0)
  if tonumber(fence) < seen then return redis.error_reply('FENCED partition ' .. partition .. ' has a newer bridge') end
end

local function drop_lease(token)
  redis.call('DEL', turn_key(token))
  redis.call('ZREM', LEASES, token)
  if redis.call('HGET', BREAKER, 'probe') == token then redis.call('HDEL', BREAKER, 'probe') end
end

-- Take the lease of a turn away and open the lanes that it still holds: open(merchant, failures).
local function end_turn(token, open)
  for _, merchant in ipairs(redis.call('LRANGE', turn_key(token), 0, -1)) do
    local fields = redis.call('HMGET', lane_key(merchant), 'claim', 'failures')
    if fields[1] == token then open(merchant, tonumber(fields[2]) or 0) end
  end
  drop_lease(token)
end
