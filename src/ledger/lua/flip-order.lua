-- An operator's order to a flip, for the coordinator that runs it. The last order holds; an abort is final.
--
-- KEYS  1 active (set)  2 heads (hash)  3 orders (hash)
-- ARGV  1 flip id  2 'pause' | 'resume' | 'abort'  3 by  4 reason
-- Returns {'ordered', number} | {'no-such-flip'} | {'ended'} | {'aborting', number}
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'no-such-flip'} end
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return {'ended'} end
local last = redis.call('HGET', KEYS[3], ARGV[1])
local number = 1
if last then
  local order = cjson.decode(last)
  if order.kind == 'abort' then return {'aborting', order.number} end
  number = order.number + 1
end
redis.call('HSET', KEYS[3], ARGV[1],
  cjson.encode({number = number, kind = ARGV[2], by = ARGV[3], reason = ARGV[4]}))
return {'ordered', number}
