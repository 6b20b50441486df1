-- Takes back the word of a file, and only of that one, that the ledger has lost data: its operator deleted it.
--
-- KEYS  1 meta (hash)
-- ARGV  1 the file, as it stands in the mark
-- Returns 1 if the mark is gone, else 0
if ARGV[1] == '' or redis.call('HGET', KEYS[1], 'regressedBy') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'regressed', 'regressedBy', 'regressedAtMs')
return 1
