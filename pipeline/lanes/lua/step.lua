#!lua flags=allow-oom
-- STEP: take the outcomes of finished turns, end leases that ran out, claim the next turn.
-- ARGV: group, events, bytes, lease, linger, most failures (0: any number), claim (0 or 1),
--       highest token the claimer knows, jitter,
--       (token, lanes, (kind, delay, reason) of each that is not done)*; lanes are packed: each first offset, entries,
--       last offset of these, done (0 or 1), name
-- Returns refused outcomes, wait, token ('' without a claim), lanes, lengths, piece*: lanes packed, each partition,
-- failures, number of entries, name; the length of each entry, packed; the entries of all lanes, in pieces of any length.
local GROUP, EVENTS, BYTES = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local LEASE, LINGER, MOST_FAILURES, JITTER = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[9])
local CHUNK = 64 -- entries read at once: a turn is limited by bytes, and one entry may have a megabyte
local PIECE = 8000 -- bytes: Lua joins as many without copying them more than once
local LONG = 25 -- entries: a lane with more is long
local MOST_NEWS = 100000 -- of a partition; a bridge that hears none asks its silent lanes
local refused = 0

local ACCEPTED = ns .. ':accepted'

-- How many times lanes of this consumer were accepted; between two failures of a lane only others can be.
local accepted_before, accepted_here = nil, 0
local function accepted()
  accepted_before = accepted_before or tonumber(redis.call('GET', ACCEPTED) or 0)
  return accepted_before + accepted_here
end

-- By partition: what its bridge has to hear. Told as it is now; each word of a lane is true without those before it.
local news = {}
local function tell(name, partition, incarnation, acknowledged, parked)
  if not incarnation or not acknowledged then return end -- damaged: the bridge's next ADD finds out
  local told = news[partition] or {}
  news[partition] = told
  told[#told + 1] = struct.pack('<i8i8I2c0I2c0', incarnation, acknowledged, #parked, parked, #name, name)
end

-- Out of its turns until its bridge has moved it out of the way; lanes of tasks have none.
local function park(name, failures, partition, reason)
  redis.call('HSET', lane_key(name), 'claim', '', 'failures', failures + 1, 'reason', reason, 'parked', reason)
  redis.call('SADD', FAILING, name)
  local fields = redis.call('HMGET', lane_key(name), 'incarnation', 'acknowledged')
  tell(name, partition, tonumber(fields[1]), tonumber(fields[2]), reason)
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

-- The sink has the first entries: they leave the list, if it still starts with them. Returns whether they are gone.
local function drop(list, first, entries)
  if entries == 1 then
    local head = redis.call('LPOP', list)
    if head and offset_of(head) ~= first then
      redis.call('LPUSH', list, head)
      return false
    end
  else
    local head = redis.call('LINDEX', list, 0)
    if head and offset_of(head) ~= first then return false end
    if head then redis.call('LTRIM', list, entries, -1) end
  end
  return true
end

-- Its claim is taken away already.
local function open(name, failures, linger_until)
  local due, length = now, redis.call('LLEN', list_key(name))
  if linger_until and length < EVENTS then due = tonumber(linger_until) end
  if length > 0 then wait_for_turn(name, failures, due) end
end

local function recover(name)
  redis.call('HDEL', lane_key(name), 'failures', 'not_before', 'reason', 'faults', 'accepted_then')
  redis.call('SREM', FAILING, name)
end

local function settle(token, alone, name, first, entries, last, kind, delay, reason)
  local lane = lane_key(name)
  local fields = redis.call('HMGET', lane, 'claim', 'failures', 'partition', 'linger_until', 'enqueued', 'incarnation')
  if fields[1] ~= token then
    refused = refused + 1
    return nil
  end
  local failures, partition = tonumber(fields[2]) or 0, fields[3]
  local gone = false
  if entries > 0 then
    gone = drop(list_key(name), first, entries)
    redis.call('HSET', lane, 'acknowledged', last, 'claim', '')
    if is_fed(partition) then
      tell(name, partition, tonumber(fields[6]), last, '')
      accepted_here = accepted_here + 1
    end
  end
  if failures > 0 and (entries > 0 or kind == 'done') then
    recover(name)
    failures = 0
  end
  if kind == 'park' and is_fed(partition) then
    park(name, failures, partition, reason)
  elseif kind == 'done' or kind == 'unavailable' then
    if entries == 0 then redis.call('HSET', lane, 'claim', '') end
    if not gone or tonumber(fields[5]) ~= last then open(name, failures, fields[4]) end
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
  local token, lanes, at, count = ARGV[i], ARGV[i + 1], 1, 0
  local unavailable, done = false, false
  local held = redis.call('LLEN', turn_key(token))
  i = i + 2
  while at <= #lanes do
    local first, entries, last, is_done, name
    first, entries, last, is_done, name, at = struct.unpack('<i8I4i8BI2c0', lanes, at)
    local kind, delay, reason = 'done', 0, ''
    if is_done == 0 then
      kind, delay, reason, i = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], i + 3
    end
    kind = settle(token, held == 1, name, first, entries, last, kind, delay, reason)
    unavailable = unavailable or kind == 'unavailable'
    done = done or kind == 'done'
    count = count + 1
  end
  judge(token, unavailable, done)
  if held > count then
    end_turn(token, function(name, failures, partition)
      fail(name, failures, partition, held == 1, 0, 'the turn left the lane undecided')
    end)
  else
    drop_lease(token)
  end
  return i
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

-- Those that are as long, or as short, as the oldest: a short one would wait until the long ones of its turn are read.
local function as_the_oldest(names)
  local found, first = {}, nil
  for _, name in ipairs(names) do
    local is_long = redis.call('LLEN', list_key(name)) > LONG
    if first == nil then first = is_long end
    if is_long == first then found[#found + 1] = name end
  end
  return found
end

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
  -- Where many wait, turns are what costs; who lingers wants company.
  if set == READY and LINGER == 0 and #found < GROUP then found = as_the_oldest(found) end
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

-- The head of a lane within what the turn has room for; the first lane of a turn gives at least one entry. nil: it
-- begins with what is no event.
local function head(name, events, bytes, is_first)
  local taken, size = {}, 0
  while #taken < events do
    local most = math.min(CHUNK, events - #taken)
    local chunk = redis.call('LRANGE', list_key(name), #taken, #taken + most - 1)
    for _, entry in ipairs(chunk) do
      local _, ends = string.find(entry, '^%d+\n')
      if not ends or ends > 16 then
        if #taken > 0 then return taken, size end
        return nil
      end
      local length = #entry - ends
      if size + length > bytes and not (is_first and #taken == 0) then return taken, size end
      size = size + length
      taken[#taken + 1] = entry
    end
    if #chunk < most then break end
  end
  return taken, size
end

-- What is left in a lane has waited for long enough already; what comes during the turn lingers from then.
local function mark(name, token, has_more, linger_until)
  if LINGER > 0 and has_more then
    redis.call('HSET', lane_key(name), 'claim', token, 'linger_until', now)
  else
    redis.call('HSET', lane_key(name), 'claim', token)
    if linger_until then redis.call('HDEL', lane_key(name), 'linger_until') end
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

local function lengths_of(entries)
  local lengths, out = {}, {}
  for k, entry in ipairs(entries) do lengths[k] = #entry end
  for k = 1, #lengths, 100 do
    local stop = math.min(#lengths, k + 99)
    out[#out + 1] = struct.pack('<' .. string.rep('I4', stop - k + 1), unpack(lengths, k, stop))
  end
  return table.concat(out)
end

-- Each element of an answer costs its reader more than a copy here.
local function add_pieces(out, entries)
  local from, size = 1, 0
  for k, entry in ipairs(entries) do
    if k > from and size + #entry > PIECE then
      out[#out + 1] = table.concat(entries, '', from, k - 1)
      from, size = k, 0
    end
    size = size + #entry
  end
  out[#out + 1] = table.concat(entries, '', from)
end

local function claim(out)
  local number = next_token()
  local token = string.format('%.0f', number)
  local found, set = next_lanes(number)
  local events, bytes, taken, most = EVENTS, BYTES, {}, GROUP
  local lanes, all = {}, {}
  for _, name in ipairs(found) do
    local fields = redis.call('HMGET', lane_key(name), 'partition', 'failures', 'claim', 'parked', 'enqueued',
      'linger_until')
    local partition, failures = tonumber(fields[1]), tonumber(fields[2]) or 0
    if failures > 0 then most = math.min(most, most_beside(failures)) end
    if #taken >= most then break end
    local entries, size = head(name, events, bytes, #taken == 0)
    if not entries then
      set_foreign_aside(name)
      entries, size = head(name, events, bytes, #taken == 0)
    end
    if not entries or #entries == 0 and redis.call('EXISTS', list_key(name)) == 0 or not partition
        or is_claimed(fields[3]) or fields[4] then
      redis.call('ZREM', set, name) -- damaged: the bridge's next ADD finds out
    elseif #entries == 0 then
      break
    else
      mark(name, token, tonumber(fields[5]) ~= offset_of(entries[#entries]), fields[6])
      taken[#taken + 1] = name
      lanes[#lanes + 1] = struct.pack('<i4I4I4I2c0', partition, failures, #entries, #name, name)
      for _, entry in ipairs(entries) do all[#all + 1] = entry end
      events, bytes = events - #entries, bytes - size
    end
  end
  if #taken == 0 then return end
  hold(token, set, taken)
  out[3], out[4], out[5] = token, table.concat(lanes), lengths_of(all)
  add_pieces(out, all)
end

local function score_of_first(set)
  return tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]) or now + 1000
end

-- Asked before lanes are opened too, so not what snapshots_wait() remembers.
local function earliest()
  local first = math.min(score_of_first(READY), score_of_first(RETRIES))
  if redis.call('EXISTS', SNAPSHOT_READY, SNAPSHOT_RETRIES) == 0 then return first end
  return math.min(first, score_of_first(SNAPSHOT_READY), score_of_first(SNAPSHOT_RETRIES))
end

-- Who does not claim does not come again by itself either, and who rests knows of nothing earlier than this.
local known = ARGV[7] == '0' and earliest()
local i = 10
while i <= #ARGV do i = finish(i) end
expire()
for partition, told in pairs(news) do
  for k = 1, #told, 1000 do
    local length = redis.call('RPUSH', ns .. ':news:' .. partition, unpack(told, k, math.min(#told, k + 999)))
    if length > MOST_NEWS then redis.call('DEL', ns .. ':news:' .. partition) end
  end
end
if accepted_here > 0 then redis.call('INCRBY', ACCEPTED, accepted_here) end
local out, paused = {refused, 0, ''}, pause()
if ARGV[7] == '1' and paused == 0 then claim(out) end
local more = paused == 0 and one_is_due()
if more then ring() end
if out[3] == '' or not more then
  local first = earliest()
  if known and first < known then ring() end
  out[2] = math.min(1000, math.max(1, paused, math.min(first, score_of_first(LEASES)) - now))
end
return out
