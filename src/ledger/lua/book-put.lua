-- Keeps one document by its name; of all only as many as are kept, and drops those that were put longest ago.
--
-- KEYS  1 documents (hash)  2 their order (sorted set)
-- ARGV  1 name  2 document (JSON)  3 documents that are kept
-- Returns how many were dropped
--! include clock
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], clock(), ARGV[1])
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[3])
if over <= 0 then return 0 end
for _, old in ipairs(redis.call('ZRANGE', KEYS[2], 0, over - 1)) do redis.call('HDEL', KEYS[1], old) end
return redis.call('ZREMRANGEBYRANK', KEYS[2], 0, over - 1)
