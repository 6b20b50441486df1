-- Takes a member off the list, and notes when: writes that it finished may be younger than lists show.
--
-- KEYS  1 members (hash)  2 meta (hash)
-- ARGV  1 member id
-- Returns 1 if it was listed, else 0
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], 'lastDepartureMs', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return 1
