-- One attempt at a write with an Idempotency-Key: takes the key, or says what became of the write that has it.
--
-- KEYS  1 record of the key (hash)  2 keys in use of the partition (sorted set: record name by expiry, ms)
-- ARGV  1 record name  2 fingerprint  3 attempt id  4 owner  5 epoch  6 key  7 method  8 member
--       9 in doubt after, ms  10 kept for, ms  11 keys in use at most
-- Returns {'claimed'} | {'reused'} | {'too-many-keys', ms until one is free}
--         | {'pending' | 'in-doubt' | 'not-kept' | 'answered', owner, epoch, at ms, status or '', answer (JSON) or ''}
--! include clock
local now = clock()
local known = redis.call('HMGET', KEYS[1], 'state', 'fingerprint', 'doubtAtMs', 'owner', 'epoch', 'atMs', 'status', 'answer')
local state = known[1]
if state then
  if known[2] ~= ARGV[2] then return {'reused'} end
  if state == 'pending' and now >= tonumber(known[3]) then state = 'in-doubt' end
  return {state, known[4], known[5], known[6], known[7] or '', known[8] or ''}
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[11]) then
  local soonest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  return {'too-many-keys', string.format('%d', tonumber(soonest[2]) - now)}
end
redis.call('HSET', KEYS[1], 'state', 'pending', 'fingerprint', ARGV[2], 'attempt', ARGV[3], 'owner', ARGV[4],
  'epoch', ARGV[5], 'key', ARGV[6], 'method', ARGV[7], 'member', ARGV[8], 'atMs', string.format('%d', now),
  'doubtAtMs', string.format('%d', now + tonumber(ARGV[9])))
redis.call('PEXPIRE', KEYS[1], ARGV[10])
redis.call('ZADD', KEYS[2], string.format('%d', now + tonumber(ARGV[10])), ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[10])
return {'claimed'}
