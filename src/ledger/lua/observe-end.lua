-- Takes an observing proxy off the list, and notes when: writes that it passed on may be younger than lists show, and
-- may be of partitions that the registry does not know.
--
-- KEYS  1 observers (hash)  2 meta (hash)
-- ARGV  1 observer id  2 when it was last seen (Redis clock, ms), '' when it leaves by itself
-- Returns 1 if it was listed and has not been seen since, else 0
--! include clock
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then return 0 end
if ARGV[2] ~= '' and cjson.decode(stored).seenAtMs ~= tonumber(ARGV[2]) then return 0 end
local now = clock()
if redis.call('HDEL', KEYS[2], 'registryComplete') == 1 then
  redis.call('HSET', KEYS[2], 'registryGap', cjson.encode({member = ARGV[1], atMs = now}))
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], 'lastDepartureMs', string.format('%d', now))
return 1
