#!lua flags=allow-oom
-- RELEASE: give a turn back that was not begun; its lanes are ready at once and nothing is counted.
-- ARGV: token
local opened = false
end_turn(ARGV[1], function(name, failures)
  redis.call('HSET', lane_key(name), 'claim', '')
  wait_for_turn(name, failures, now)
  opened = true
end)
if opened then ring() end
return redis.status_reply('OK')
