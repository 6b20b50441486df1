-- The last step of a restore: what was written aside becomes the ledger, under a new stream, and the mark goes.
-- For members it is one moment. Whoever has applied an older version loads a snapshot (see heartbeat.lua).
--
-- KEYS  1 partitions  2 meta (hash)  3 changes (stream)  4 restore under way (string)
--       5 partitions  6 registry  7 directory  8 cohorts  9 closed windows, as written aside (hashes)
--       10 registry  11 directory  12 cohorts  13 closed windows (hashes)  14 version of the closed windows (string)
-- ARGV  1 token  2 version, above every version known  3 id  4 rules (JSON), '' where none are known
--       5.. how many entries were written aside to each of KEYS 5 to 9
-- Returns 1, or 0 where this restore has lost its turn, the version is not above the ledger's, or what was written
-- aside is not whole (a replica was promoted that had not got all of it); then nothing is changed
--! include clock
if redis.call('GET', KEYS[4]) ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[2], 'regressed') == 0 then return 0 end
if tonumber(redis.call('HGET', KEYS[2], 'version') or '0') >= tonumber(ARGV[2]) then return 0 end
for place = 5, 9 do
  if redis.call('HLEN', KEYS[place]) ~= tonumber(ARGV[place]) then return 0 end
end
redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('RENAME', KEYS[5], KEYS[1])
  redis.call('PERSIST', KEYS[1])
end
-- What the ledger still has stands: it may be newer than the export.
for place = 6, 9 do
  if redis.call('EXISTS', KEYS[place]) == 1 and redis.call('EXISTS', KEYS[place + 4]) == 0 then
    redis.call('RENAME', KEYS[place], KEYS[place + 4])
    redis.call('PERSIST', KEYS[place + 4])
  end
  local cursor = '0'
  repeat
    local some = redis.call('HSCAN', KEYS[place], cursor, 'COUNT', 1000)
    cursor = some[1]
    for at = 1, #some[2], 2 do redis.call('HSETNX', KEYS[place + 4], some[2][at], some[2][at + 1]) end
  until cursor == '0'
  redis.call('UNLINK', KEYS[place])
end
redis.call('SET', KEYS[14], ARGV[3])
redis.call('HSET', KEYS[2], 'version', ARGV[2], 'id', ARGV[3], 'restoredVersion', ARGV[2],
  'lastDepartureMs', string.format('%d', clock()))
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'rules', ARGV[4]) end
-- What traffic showed to a registry that was lost with the ledger is unknown: nobody is a newcomer for certain.
redis.call('HDEL', KEYS[2], 'regressed', 'regressedBy', 'regressedAtMs', 'registryComplete')
return 1
