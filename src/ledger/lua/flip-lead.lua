-- The lease to run one flip. Terms only grow, so a term is a fencing token: who holds an older one is late.
--
-- KEYS  1 terms (hash)  2 active (set)  3 lease of this flip
-- ARGV  1 flip id  2 'take' | 'renew' | 'leave'  3 own term ('' for take)  4 lease ms
-- Returns the term that the caller now holds; 0 when it holds none
local term = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[2] == 'take' then
  if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
  term = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
elseif term ~= ARGV[3] then
  return 0
end
if ARGV[2] == 'leave' then
  redis.call('DEL', KEYS[3])
  return 0
end
-- A lease that ran out, and that nobody took, may go on.
redis.call('SET', KEYS[3], term, 'PX', ARGV[4])
return tonumber(term)
