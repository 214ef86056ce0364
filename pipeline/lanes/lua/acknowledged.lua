#!lua flags=allow-oom
-- ACKNOWLEDGED: take up to n lanes of a partition that have news: name, incarnation, last acknowledged offset, why parked.
-- ARGV: epoch, partition, n. A lost reply loses news; the bridge's empty ADD asks again for what is pending too long.
local refusal = check_epoch(ARGV[1])
if refusal then return refusal end
local out = {}
for _, name in ipairs(redis.call('SPOP', ns .. ':dirty:' .. ARGV[2], ARGV[3])) do
  local state = redis.call('HMGET', lane_key(name), 'incarnation', 'acknowledged', 'parked')
  local incarnation, acknowledged, n = tonumber(state[1]), tonumber(state[2]), #out
  if incarnation and acknowledged then -- else: damaged; the bridge's next ADD finds out
    out[n + 1], out[n + 2], out[n + 3], out[n + 4] = name, incarnation, acknowledged, state[3]
  end
end
return out
