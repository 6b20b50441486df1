-- The last step of a restore: what was written aside becomes the ledger, under a new stream, and the mark goes.
-- For members it is one moment. Whoever has applied an older version loads a snapshot (see heartbeat.lua).
--
-- KEYS  1 partitions (hash)  2 meta (hash)  3 changes (stream)  4 what was written aside (hash)
--       5 restore under way (string)
-- ARGV  1 token  2 version, above every version known  3 id  4 rules (JSON), '' where none are known
-- Returns 1, or 0 where this restore has lost its turn or the version is not above the ledger's
if redis.call('GET', KEYS[5]) ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[2], 'regressed') == 0 then return 0 end
if tonumber(redis.call('HGET', KEYS[2], 'version') or '0') >= tonumber(ARGV[2]) then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[5])
if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('RENAME', KEYS[4], KEYS[1]) end
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], 'version', ARGV[2], 'id', ARGV[3], 'restoredVersion', ARGV[2],
  'lastDepartureMs', string.format('%d', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)))
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'rules', ARGV[4]) end
-- What traffic showed to a registry that was lost with the ledger is unknown: nobody is a newcomer for certain.
redis.call('HDEL', KEYS[2], 'regressed', 'regressedBy', 'regressedAtMs', 'registryComplete')
return 1
