-- Takes a member off the list, and notes when: writes that it finished may be younger than lists show.
--
-- KEYS  1 members (hash)  2 meta (hash)
-- ARGV  1 member id  2 the sequence number that it was seen to stand still at, '' when it leaves by itself
-- Returns 1 if it was listed and has not sent a heartbeat since, else 0
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then return 0 end
if ARGV[2] ~= '' and cjson.decode(stored).sequence ~= tonumber(ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], 'lastDepartureMs', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return 1
