#!lua flags=allow-oom
-- ACKNOWLEDGED: take up to n lanes of a partition that have news. Returns (incarnation, last acknowledged offset)* of
-- them in one string, how many they are, their names, then (number of a lane, why it is parked)*.
-- ARGV: epoch, partition, n. A lost reply loses news; the bridge's empty ADD asks again for what is pending too long.
local refusal = check_epoch(ARGV[1])
if refusal then return refusal end
local numbers, out, parked = {}, {'', 0}, {}
for _, name in ipairs(redis.call('SPOP', ns .. ':dirty:' .. ARGV[2], ARGV[3])) do
  local state = redis.call('HMGET', lane_key(name), 'incarnation', 'acknowledged', 'parked')
  local incarnation, acknowledged = tonumber(state[1]), tonumber(state[2])
  if incarnation and acknowledged then -- else: damaged; the bridge's next ADD finds out
    if state[3] then parked[#parked + 1], parked[#parked + 2] = #numbers, state[3] end
    numbers[#numbers + 1] = string.format('%.0f %.0f', incarnation, acknowledged)
    out[#out + 1] = name
  end
end
out[1], out[2] = table.concat(numbers, ' '), #numbers
for _, said in ipairs(parked) do out[#out + 1] = said end
return out
