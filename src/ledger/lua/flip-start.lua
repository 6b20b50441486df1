-- Writes down a flip, reserves its partitions for it, and makes its first coordinator: all of it, or nothing.
--
-- KEYS  1 heads (hash)  2 partitions (hash)  3 progress (hash)  4 reserved (hash)  5 terms (hash)  6 active (set)
--       7 lease of this flip
-- ARGV  1 flip id  2 head (JSON)  3 partitions (JSON array)  4 progress (JSON)  5 lease ms
-- Returns {'started', term} | {'reserved', partition, flip that holds it}
local partitions = cjson.decode(ARGV[3])
for _, partition in ipairs(partitions) do
  local holder = redis.call('HGET', KEYS[4], partition)
  if holder then return {'reserved', partition, holder} end
end
for _, partition in ipairs(partitions) do redis.call('HSET', KEYS[4], partition, ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
redis.call('SADD', KEYS[6], ARGV[1])
local term = redis.call('HINCRBY', KEYS[5], ARGV[1], 1)
redis.call('SET', KEYS[7], term, 'PX', ARGV[5])
return {'started', term}
