#!lua flags=allow-oom
-- ACKNOWLEDGED: take up to n words of a partition's news, packed as STEP told them: each incarnation, last acknowledged
-- offset, why the lane is parked or '', name. ARGV: epoch, partition, n.
-- A lost reply loses news; the bridge's empty ADD asks again for what is pending too long.
local refusal = check_epoch(ARGV[1])
if refusal then return refusal end
return table.concat(redis.call('LPOP', ns .. ':news:' .. ARGV[2], ARGV[3]) or {})
