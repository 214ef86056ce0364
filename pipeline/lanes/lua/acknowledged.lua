#!lua flags=allow-oom
-- ACKNOWLEDGED: take up to n lanes of a partition that have news, each with its last acknowledged offset.
-- ARGV: epoch, partition, n. A lost reply loses news; the bridge's empty ADD asks again for what is pending too long.
local refusal = check_epoch(ARGV[1])
if refusal then return refusal end
local out = {}
for _, name in ipairs(redis.call('SPOP', ns .. ':dirty:' .. ARGV[2], ARGV[3])) do
  local acknowledged = redis.call('HGET', lane_key(name), 'acknowledged')
  if acknowledged then out[#out + 1], out[#out + 2] = name, tonumber(acknowledged) end
end
return out
