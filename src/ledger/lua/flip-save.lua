-- Saves how far a flip is, unless another coordinator has taken it over. Partitions that have moved or were given
-- up are free for other flips from here on; with the end of the flip, all of them.
--
-- KEYS  1 terms (hash)  2 progress (hash)  3 reserved (hash)  4 reports of this flip (hash)  5 failed of this flip (hash)
--       6 active (set)  7 ended (sorted set)  8 heads (hash)  9 partitions (hash)  10 orders (hash)  11 lease of this flip
-- ARGV  1 flip id  2 own term  3 progress (JSON)  4 reports: JSON array of [partition, report, failure or '']
--       5 partitions that are free now (JSON array)  6 when the flip ended, ms; '' while it goes on
--       7 ended flips that are kept  8 prefix of the keys of one flip
-- Returns 1, or 0 when the term is over and nothing was saved
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
for _, report in ipairs(cjson.decode(ARGV[4])) do
  redis.call('HSET', KEYS[4], report[1], report[2])
  if report[3] ~= '' then redis.call('HSET', KEYS[5], report[1], report[3]) end
end
for _, partition in ipairs(cjson.decode(ARGV[5])) do
  if redis.call('HGET', KEYS[3], partition) == ARGV[1] then redis.call('HDEL', KEYS[3], partition) end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
if ARGV[6] == '' then return 1 end
redis.call('SREM', KEYS[6], ARGV[1])
redis.call('DEL', KEYS[11])
redis.call('ZADD', KEYS[7], ARGV[6], ARGV[1])
local over = redis.call('ZCARD', KEYS[7]) - tonumber(ARGV[7])
if over <= 0 then return 1 end
for _, old in ipairs(redis.call('ZRANGE', KEYS[7], 0, over - 1)) do
  redis.call('ZREM', KEYS[7], old)
  for _, key in ipairs({KEYS[1], KEYS[2], KEYS[8], KEYS[9], KEYS[10]}) do redis.call('HDEL', key, old) end
  redis.call('DEL', ARGV[8] .. old .. ':reports', ARGV[8] .. old .. ':failed')
end
return 1
