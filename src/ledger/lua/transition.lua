-- One transition of one partition: compare-and-set on (phase, epoch, attempt), then append to the stream.
--
-- KEYS  1 partitions (hash)  2 meta (hash)  3 changes (stream)  4 observers (hash)
-- ARGV  1 partition  2 expected phase  3 expected epoch  4 expected attempt ('' where open)
--       5 next ownership (JSON, deadline not yet set)  6 fence length ms ('' unless a fence)
--       7 deadline rule: '' none, 'before' must not have passed, 'after' must have passed
--       8 change id  9 by  10 reason  11 untouched record (JSON)  12 stream length kept
-- Returns {'done', record} | {'changed', record} | {'deadline-passed', record} | {'deadline-not-passed', record}
--         | {'ledger-regressed', record} | {'observed', record}
--! include clock change ownership
local stored = redis.call('HGET', KEYS[1], ARGV[1]) or ARGV[11]
if redis.call('HEXISTS', KEYS[2], 'regressed') == 1 then return {'ledger-regressed', stored} end
local current = cjson.decode(stored)
if current.phase ~= ARGV[2] or current.epoch ~= tonumber(ARGV[3]) or (current.attempt or '') ~= ARGV[4] then
  return {'changed', stored}
end
-- Who only observes sends writes to the default store, whatever the ledger says: nothing may begin to move.
if ARGV[6] ~= '' and redis.call('HLEN', KEYS[4]) > 0 then return {'observed', stored} end
local now = clock()
if ARGV[7] == 'before' and now >= current.deadlineMs then return {'deadline-passed', stored} end
if ARGV[7] == 'after' and now < current.deadlineMs then return {'deadline-not-passed', stored} end
local record = cjson.decode(ARGV[5])
if ARGV[6] ~= '' then record.deadlineMs = now + tonumber(ARGV[6]) end
return {'done', changeOwnership(ARGV[1], stored, record, now, ARGV[8], ARGV[9], ARGV[10], ARGV[12])}
