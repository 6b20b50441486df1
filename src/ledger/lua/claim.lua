-- Where does a partition live that the ledger does not list, while new partitions begin at the other store?
--
-- "Not in the ledger" is not "new": the hash does not list who lives at the default store. Only a complete
-- registry can tell, and only in the same step in which the claim is made. Where the registry is not complete,
-- the partition is taken for an old one: it is registered, and lives at the default store from then on.
--
-- A guarded app must be sealed before the claim, or it would refuse the first write. The seal is noted first, so
-- that somebody ends what a dead member began: a sealed partition that turns out to live at the default store
-- needs a higher epoch, or the guard would refuse its copies for ever.
--
-- KEYS  1 partitions (hash)  2 meta (hash)  3 changes (stream)  4 registry (hash)  5 seals under way (hash)
--       6 observers (hash)
-- ARGV  1 partition  2 hash of the rules that the member runs by  3 next ownership (JSON)  4 change id  5 by
--       6 reason  7 untouched record (JSON)  8 stream length kept
--       9 step: 'ask' only asks, 'seal' notes that the guard will be sealed, 'claim' claims
-- Returns {answer, record, '1' where a seal is noted, else ''}; the answer is 'claimed' | 'touched' | 'newcomer'
--         | 'at-home' | 'taken-for-old' | 'rules-changed' | 'ledger-regressed'
--! include clock change ownership
local step = ARGV[9]
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  -- Every epoch of it is above the one that was sealed.
  if step ~= 'ask' then redis.call('HDEL', KEYS[5], ARGV[1]) end
  return {'touched', stored, ''}
end
local known = redis.call('HMGET', KEYS[2], 'rules', 'regressed', 'registryComplete')
local sealed = redis.call('HEXISTS', KEYS[5], ARGV[1]) == 1 and '1' or ''
if known[2] then return {'ledger-regressed', ARGV[7], sealed} end
if not known[1] or cjson.decode(known[1]).hash ~= ARGV[2] then return {'rules-changed', ARGV[7], sealed} end
local attributes = redis.call('HGET', KEYS[4], ARGV[1])
if attributes then
  -- Written again, whatever the step, since the member relies on the answer: the WAIT behind this covers an entry
  -- that somebody else has just made only if this script has written.
  redis.call('HSET', KEYS[4], ARGV[1], attributes)
  return {'at-home', ARGV[7], sealed}
end
-- Who only observes lets everybody write to the default store, and tells nobody whom.
if not known[3] or redis.call('HLEN', KEYS[6]) > 0 then
  if step ~= 'ask' then redis.call('HSET', KEYS[4], ARGV[1], '{}') end
  return {'taken-for-old', ARGV[7], sealed}
end
if step == 'ask' then return {'newcomer', ARGV[7], sealed} end
local now = clock()
if step == 'seal' then
  redis.call('HSET', KEYS[5], ARGV[1], string.format('%d', now))
  return {'newcomer', ARGV[7], '1'}
end
redis.call('HSETNX', KEYS[4], ARGV[1], '{}')
redis.call('HDEL', KEYS[5], ARGV[1])
local record = changeOwnership(ARGV[1], ARGV[7], cjson.decode(ARGV[3]), now, ARGV[4], ARGV[5], ARGV[6], ARGV[8])
return {'claimed', record, ''}
