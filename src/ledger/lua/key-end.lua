-- How the write ended that holds an Idempotency-Key. Only the attempt that holds it may say so, and only once.
--
-- KEYS  1 record of the key (hash)  2 keys in use of the partition (sorted set)  3 bytes kept, by hour (hash)
-- ARGV  1 record name  2 attempt id  3 ending: 'answered' | 'not-kept' | 'in-doubt' | 'not-done'
--       4 status ('' where there is none)  5 answer (JSON, '' where none is kept)
--       6 kept for, ms  7 bytes of answers that a partition may keep
-- Returns 1 if it took effect, else 0
--! include clock
local known = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if known[1] ~= 'pending' or known[2] ~= ARGV[2] then return 0 end
if ARGV[3] == 'not-done' then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 1
end
local now = clock()
local keep = tonumber(ARGV[6])
local state = ARGV[3]
if state == 'answered' then
  local hour = 3600000
  local kept = 0
  local hours = redis.call('HGETALL', KEYS[3])
  for place = 1, #hours, 2 do
    if (tonumber(hours[place]) + 1) * hour + keep <= now then redis.call('HDEL', KEYS[3], hours[place])
    else kept = kept + tonumber(hours[place + 1]) end
  end
  if kept + #ARGV[5] > tonumber(ARGV[7]) then
    state = 'not-kept'
  else
    redis.call('HINCRBY', KEYS[3], string.format('%d', math.floor(now / hour)), #ARGV[5])
    redis.call('PEXPIRE', KEYS[3], string.format('%d', keep + hour))
    redis.call('HSET', KEYS[1], 'answer', ARGV[5])
  end
end
redis.call('HSET', KEYS[1], 'state', state, 'status', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('ZADD', KEYS[2], string.format('%d', now + keep), ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 1
