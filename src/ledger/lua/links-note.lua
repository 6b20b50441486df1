-- Notes that partitions are written together: each pair once, under its first time.
--
-- What is there already is written again all the same: the WAIT behind this covers what somebody else has just noted
-- only if this script has written, and the caller forwards a write on the strength of it.
--
-- KEYS  1 links (hash: "a\nb" with a before b)  2 partners (sorted set, all scores 0: "a\nb" and "b\na")
-- ARGV  1 links that are kept at most  2 route  3 how many may be new  4.. pairs: a, b, a, b, …
-- Returns {'noted', how many were new}; {'full'} where one more does not fit, {'too-many'} where more would be new; then
-- nothing is noted
--! include clock
local fresh = 0
for place = 4, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[place] .. '\n' .. ARGV[place + 1]) == 0 then fresh = fresh + 1 end
end
if fresh > tonumber(ARGV[3]) then return {'too-many'} end
if fresh > 0 and redis.call('HLEN', KEYS[1]) + fresh > tonumber(ARGV[1]) then return {'full'} end
local now = clock()
for place = 4, #ARGV, 2 do
  local one, other = ARGV[place], ARGV[place + 1]
  local link = one .. '\n' .. other
  local known = redis.call('HGET', KEYS[1], link)
  redis.call('HSET', KEYS[1], link, known or cjson.encode({atMs = now, route = ARGV[2]}))
  redis.call('ZADD', KEYS[2], 0, link, 0, other .. '\n' .. one)
end
return {'noted', fresh}
