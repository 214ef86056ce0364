#!lua flags=allow-oom
-- RENEW: hold these turns for another lease; returns those that are still held. An ended lease stays ended.
-- ARGV: lease, token*
local held = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', LEASES, ARGV[i]) then
    redis.call('ZADD', LEASES, now + ARGV[1], ARGV[i])
    held[#held + 1] = ARGV[i]
  end
end
return held
