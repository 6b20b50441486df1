-- One transition of one partition: compare-and-set on (phase, epoch, attempt), then append to the stream.
--
-- KEYS  1 partitions (hash)  2 meta (hash)  3 changes (stream)
-- ARGV  1 partition  2 expected phase  3 expected epoch  4 expected attempt ('' where open)
--       5 next ownership (JSON, deadline not yet set)  6 fence length ms ('' unless a fence)
--       7 deadline rule: '' none, 'before' must not have passed, 'after' must have passed
--       8 change id  9 by  10 reason  11 untouched record (JSON)  12 stream length kept
-- Returns {'done', record} | {'changed', record} | {'deadline-passed', record} | {'deadline-not-passed', record}
--         | {'ledger-regressed', record}
local stored = redis.call('HGET', KEYS[1], ARGV[1]) or ARGV[11]
if redis.call('HEXISTS', KEYS[2], 'regressed') == 1 then return {'ledger-regressed', stored} end
local current = cjson.decode(stored)
if current.phase ~= ARGV[2] or current.epoch ~= tonumber(ARGV[3]) or (current.attempt or '') ~= ARGV[4] then
  return {'changed', stored}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if ARGV[7] == 'before' and now >= current.deadlineMs then return {'deadline-passed', stored} end
if ARGV[7] == 'after' and now < current.deadlineMs then return {'deadline-not-passed', stored} end
local record = cjson.decode(ARGV[5])
if ARGV[6] ~= '' then record.deadlineMs = now + tonumber(ARGV[6]) end
local previous = redis.call('HGET', KEYS[2], 'id') or ''
local version = redis.call('HINCRBY', KEYS[2], 'version', 1)
redis.call('HSET', KEYS[2], 'id', ARGV[8])
record.version = version
record.transitionId = ARGV[8]
record.changedAtMs = now
local encoded = cjson.encode(record)
redis.call('HSET', KEYS[1], ARGV[1], encoded)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[12], string.format('%d-0', version), 'previous', previous, 'kind', 'ownership',
  'partition', ARGV[1], 'id', ARGV[8], 'before', stored, 'after', encoded, 'by', ARGV[9], 'reason', ARGV[10])
return {'done', encoded}
