-- Begins a restore: one at a time, and only of a ledger that is marked as having lost data. With force a sound
-- ledger is marked first, so that from here on nothing is admitted and nothing moves.
--
-- KEYS  1 meta (hash)  2 restore under way (string)
-- ARGV  1 token  2 how long an abandoned restore stands in the way, ms  3 '1' to mark a sound ledger, else ''
-- Returns 'begun' | 'marked' (begun, and the mark is ours) | 'running' | 'not-regressed'
--! include clock
local regressed = redis.call('HEXISTS', KEYS[1], 'regressed') == 1
if not regressed and ARGV[3] ~= '1' then return 'not-regressed' end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 'running' end
if regressed then return 'begun' end
redis.call('HSET', KEYS[1], 'regressed', 'an operator restores it', 'regressedBy', '',
  'regressedAtMs', string.format('%d', clock()))
return 'marked'
