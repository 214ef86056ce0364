#!lua flags=allow-oom
-- STEP: take the outcomes of finished turns, end leases that ran out, claim the next turn.
-- ARGV: group, events, bytes, lease, linger, most failures (0: any number), claim (0 or 1),
--       highest token the claimer knows, jitter,
--       (token, number of lanes, (name, first, entries, last, kind, delay, reason)*)*
-- Returns refused outcomes, wait, token ('' without a claim), (name, partition, failures, entries)*
local GROUP, EVENTS, BYTES = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local LEASE, LINGER, MOST_FAILURES, JITTER = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[9])
local CHUNK = 64 -- entries read at once: a turn is limited by bytes, and one entry may have a megabyte
local refused = 0

local ACCEPTED = ns .. ':accepted'

-- How many times lanes of this consumer were accepted; between two failures of a lane only others can be.
local accepted_before, accepted_here = nil, 0
local function accepted()
  accepted_before = accepted_before or tonumber(redis.call('GET', ACCEPTED) or 0)
  return accepted_before + accepted_here
end

-- Out of its turns until its bridge has moved it out of the way; lanes of tasks have none.
local function park(name, failures, partition, reason)
  redis.call('HSET', lane_key(name), 'claim', '', 'failures', failures + 1, 'reason', reason, 'parked', reason)
  redis.call('HDEL', lane_key(name), 'linger_until')
  redis.call('SADD', FAILING, name)
  redis.call('SADD', ns .. ':dirty:' .. partition, name)
end

-- True when a lane has failed too often by its own fault. A failure counts only if others were accepted since the one
-- before: by a sink that accepts nothing no lane is parked, however long that lasts.
local function fails_for_good(name)
  local fields = redis.call('HMGET', lane_key(name), 'faults', 'accepted_then')
  local faults, now_accepted = tonumber(fields[1]) or 0, accepted()
  local others = tonumber(fields[2]) ~= now_accepted
  if others then faults = faults + 1 end
  redis.call('HSET', lane_key(name), 'faults', faults, 'accepted_then', now_accepted)
  return others and faults > 1 and MOST_FAILURES > 0 and faults >= MOST_FAILURES
end

-- own: nothing but the lane itself can be at fault.
local function fail(name, failures, partition, own, delay, reason)
  if own and is_fed(partition) and fails_for_good(name) then return park(name, failures, partition, reason) end
  redis.call('HSET', lane_key(name), 'claim', '', 'failures', failures + 1, 'not_before', now + delay,
    'reason', reason)
  redis.call('HDEL', lane_key(name), 'linger_until')
  redis.call('SADD', FAILING, name)
  if redis.call('EXISTS', list_key(name)) == 1 then wait_for_turn(name, failures + 1, now + delay) end
end

-- A process that died may have had other turns: each failed lane waits its own time, so that they meet no more.
local function fail_unanswered(token, own)
  return function(name, failures, partition)
    local delay = 0
    if failures > 0 then
      local spread = tonumber(string.sub(redis.sha1hex(name .. token), 1, 4), 16) / 65536
      delay = math.floor(math.min(60000, 250 * 2 ^ failures) * (0.5 + spread / 2))
    end
    fail(name, failures, partition, own, delay, 'the turn ended without an answer')
  end
end

-- The sink has the first entries: they leave the lane, if the lane still starts with them.
local function accept(name, first, entries, last, partition)
  local head = redis.call('LINDEX', list_key(name), 0)
  if head and string.sub(head, 1, #first + 1) == first .. '\n' then
    redis.call('LTRIM', list_key(name), entries, -1)
  end
  redis.call('HSET', lane_key(name), 'acknowledged', last)
  if not is_fed(partition) then return end
  redis.call('SADD', ns .. ':dirty:' .. partition, name)
  accepted_here = accepted_here + 1
end

local function open(name, failures, linger_until)
  local due = now
  redis.call('HSET', lane_key(name), 'claim', '')
  local length = redis.call('LLEN', list_key(name))
  if linger_until then
    redis.call('HDEL', lane_key(name), 'linger_until')
    if length < EVENTS then due = tonumber(linger_until) end
  end
  if length > 0 then wait_for_turn(name, failures, due) end
end

local function recover(name)
  redis.call('HDEL', lane_key(name), 'failures', 'not_before', 'reason', 'faults', 'accepted_then')
  redis.call('SREM', FAILING, name)
end

local function settle(token, alone, name, first, entries, last, kind, delay, reason)
  local fields = redis.call('HMGET', lane_key(name), 'claim', 'failures', 'partition', 'linger_until')
  if fields[1] ~= token then
    refused = refused + 1
    return nil
  end
  local failures, partition = tonumber(fields[2]) or 0, fields[3]
  if entries > 0 then accept(name, first, entries, last, partition) end
  if failures > 0 and (entries > 0 or kind == 'done') then
    recover(name)
    failures = 0
  end
  if kind == 'park' and is_fed(partition) then
    park(name, failures, partition, reason)
  elseif kind == 'done' or kind == 'unavailable' then
    open(name, failures, fields[4])
  else
    fail(name, failures, partition, alone or kind == 'retry', delay, reason)
  end
  return kind
end

-- A sink that accepts nothing is nobody's fault: one turn at a time tries it, after a pause that doubles up to 30 s.
local function judge(token, unavailable, done)
  if unavailable then
    local breaker = redis.call('HMGET', BREAKER, 'failures', 'probe')
    local failures = tonumber(breaker[1]) or 0
    if failures > 0 and breaker[2] ~= token then return end
    local pause = math.floor(math.min(30000, 500 * 2 ^ failures) * JITTER)
    redis.call('HSET', BREAKER, 'failures', failures + 1, 'until', now + pause, 'probe', '')
  elseif done then
    redis.call('DEL', BREAKER)
  end
end

local function finish(i)
  local token, count = ARGV[i], tonumber(ARGV[i + 1])
  local unavailable, done = false, false
  local held = redis.call('LLEN', turn_key(token))
  for k = i + 2, i + 1 + 7 * count, 7 do
    local kind = settle(token, held == 1, ARGV[k], ARGV[k + 1], tonumber(ARGV[k + 2]), ARGV[k + 3], ARGV[k + 4],
      tonumber(ARGV[k + 5]), ARGV[k + 6])
    unavailable = unavailable or kind == 'unavailable'
    done = done or kind == 'done'
  end
  judge(token, unavailable, done)
  if held > count then
    end_turn(token, function(name, failures, partition)
      fail(name, failures, partition, held == 1, 0, 'the turn left the lane undecided')
    end)
  else
    drop_lease(token)
  end
  return i + 2 + 7 * count
end

local function expire()
  for _, token in ipairs(redis.call('ZRANGE', LEASES, '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)) do
    end_turn(token, fail_unanswered(token, redis.call('LLEN', turn_key(token)) == 1))
  end
end

-- Milliseconds until the sink may be tried again; 0: now.
local function pause()
  local breaker = redis.call('HMGET', BREAKER, 'failures', 'until', 'probe')
  if not breaker[1] then return 0 end
  if is_claimed(breaker[3]) then return 1000 end
  return math.max(0, tonumber(breaker[2]) - now)
end

-- Above every token ever given, whatever Redis has forgotten: the clock and the claimer's memory are floors.
-- Odd and even alternate.
local function next_token()
  local last = tonumber(redis.call('GET', ns .. ':token') or 0)
  local token = math.max(last + 1, tonumber(ARGV[8]) + 1, clock[1] * 1000000 + clock[2])
  return (token - last) % 2 == 0 and token + 1 or token
end

local function due_lanes(set, most)
  return redis.call('ZRANGE', set, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
end

-- Healthy lanes, oldest first, once one of them is due. Those that still linger go along: company is what they wait
-- for, and alone each would cost a turn of its own a moment later.
local function healthy_lanes(ready)
  if #due_lanes(ready, 1) == 0 then return {} end
  return redis.call('ZRANGE', ready, 0, GROUP - 1)
end

-- Half as many with each failure, so that what breaks a whole turn is alone after a few.
local function most_beside(failures) return math.max(1, math.floor(GROUP / 2 ^ failures)) end

local function failing_lanes(retries) return due_lanes(retries, most_beside(1)) end

-- Healthy and failing lanes go first by turns, and never together.
local function candidates(token, ready, retries)
  local retries_first = token % 2 == 0
  local found = retries_first and failing_lanes(retries) or healthy_lanes(ready)
  if #found > 0 then return found, retries_first and retries or ready end
  found = retries_first and healthy_lanes(ready) or failing_lanes(retries)
  return found, retries_first and ready or retries
end

-- Asked once: a step opens lanes before it claims, and closes them after.
local snapshots = nil
local function snapshots_wait()
  if snapshots == nil then snapshots = redis.call('EXISTS', SNAPSHOT_READY, SNAPSHOT_RETRIES) > 0 end
  return snapshots
end

-- Rows of snapshots wait until no live lane is due; a turn has lanes of one kind.
local function next_lanes(token)
  local found, set = candidates(token, READY, RETRIES)
  if #found > 0 or not snapshots_wait() then return found, set end
  return candidates(token, SNAPSHOT_READY, SNAPSHOT_RETRIES)
end

local function one_is_due()
  if #due_lanes(READY, 1) > 0 or #due_lanes(RETRIES, 1) > 0 then return true end
  return snapshots_wait() and (#due_lanes(SNAPSHOT_READY, 1) > 0 or #due_lanes(SNAPSHOT_RETRIES, 1) > 0)
end

-- What somebody else has pushed into a lane has no offset. It is kept apart, and neither delivered nor in the way.
local function set_foreign_aside(name)
  local first = redis.call('LINDEX', list_key(name), 0)
  while first and not offset_of(first) do
    redis.call('LMOVE', list_key(name), ns .. ':foreign', 'LEFT', 'RIGHT')
    first = redis.call('LINDEX', list_key(name), 0)
  end
end

-- The head of a lane within what the turn has room for; the first lane of a turn gives at least one entry. nil: an
-- entry is no event.
local function head(name, events, bytes, is_first)
  local taken, size = {}, 0
  while #taken < events do
    local most = math.min(CHUNK, events - #taken)
    local chunk = redis.call('LRANGE', list_key(name), #taken, #taken + most - 1)
    for _, entry in ipairs(chunk) do
      local ends = string.find(entry, '\n', 1, true)
      if not ends then return nil end
      local length = #entry - ends
      if size + length > bytes and not (is_first and #taken == 0) then return taken, size end
      size = size + length
      taken[#taken + 1] = entry
    end
    if #chunk < most then break end
  end
  return taken, size
end

local function mark(name, token, taken)
  local lane = lane_key(name)
  redis.call('HSET', lane, 'claim', token)
  if LINGER == 0 then return end
  if redis.call('LLEN', list_key(name)) > taken then
    redis.call('HSET', lane, 'linger_until', now)
  else
    redis.call('HDEL', lane, 'linger_until')
  end
end

local function hold(token, set, names)
  for k = 1, #names, 1000 do
    local stop = math.min(#names, k + 999)
    redis.call('ZREM', set, unpack(names, k, stop))
    redis.call('RPUSH', turn_key(token), unpack(names, k, stop))
  end
  redis.call('SET', ns .. ':token', token)
  redis.call('ZADD', LEASES, now + LEASE, token)
  if redis.call('EXISTS', BREAKER) == 1 then redis.call('HSET', BREAKER, 'probe', token) end
end

local function claim(out)
  local number = next_token()
  local token = string.format('%.0f', number)
  local found, set = next_lanes(number)
  local events, bytes, taken, most = EVENTS, BYTES, {}, GROUP
  for _, name in ipairs(found) do
    local fields = redis.call('HMGET', lane_key(name), 'partition', 'failures', 'claim', 'parked')
    local failures = tonumber(fields[2]) or 0
    if failures > 0 then most = math.min(most, most_beside(failures)) end
    if #taken >= most then break end
    local entries, size = head(name, events, bytes, #taken == 0)
    if not entries then
      set_foreign_aside(name)
      entries, size = head(name, events, bytes, #taken == 0)
    end
    if not entries or #entries == 0 and redis.call('EXISTS', list_key(name)) == 0 or not fields[1]
        or is_claimed(fields[3]) or fields[4] then
      redis.call('ZREM', set, name) -- damaged: the bridge's next ADD finds out
    elseif #entries == 0 then
      break
    else
      mark(name, token, #entries)
      taken[#taken + 1] = name
      out[#out + 1] = {name, fields[1], failures, entries}
      events, bytes = events - #entries, bytes - size
    end
  end
  if #taken == 0 then return end
  hold(token, set, taken)
  out[3] = token
end

local function score_of_first(set)
  return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]) or now + 1000
end

local i = 10
while i <= #ARGV do i = finish(i) end
expire()
if accepted_here > 0 then redis.call('INCRBY', ACCEPTED, accepted_here) end
local out, paused = {refused, 0, ''}, pause()
if ARGV[7] == '1' and paused == 0 then claim(out) end
if paused == 0 and one_is_due() then ring() end
if out[3] == '' then
  local first = math.min(score_of_first(READY), score_of_first(RETRIES), score_of_first(LEASES))
  if snapshots_wait() then
    first = math.min(first, score_of_first(SNAPSHOT_READY), score_of_first(SNAPSHOT_RETRIES))
  end
  out[2] = math.min(1000, math.max(1, paused, first - now))
end
return out
