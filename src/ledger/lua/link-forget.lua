-- An operator says that two partitions are not written together any more. It is a change in the stream, so that every
-- member notes the link anew before it forwards another write that joins them; and whoever fences one of the two
-- later, and has every member's acknowledgement, knows that each of them has heard of it.
--
-- KEYS  1 links (hash)  2 partners (sorted set)  3 meta (hash)  4 changes (stream)
-- ARGV  1, 2 the partitions, in the order of their names  3 change id  4 by  5 reason  6 stream length kept
-- Returns {'forgotten', what was noted (JSON)} | {'unknown'} | {'ledger-regressed', sentence}
local regressed = redis.call('HGET', KEYS[3], 'regressed')
if regressed then return {'ledger-regressed', regressed} end
local link = ARGV[1] .. '\n' .. ARGV[2]
local known = redis.call('HGET', KEYS[1], link)
if not known then return {'unknown'} end
redis.call('HDEL', KEYS[1], link)
redis.call('ZREM', KEYS[2], link, ARGV[2] .. '\n' .. ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local previous = redis.call('HGET', KEYS[3], 'id') or ''
local version = redis.call('HINCRBY', KEYS[3], 'version', 1)
redis.call('HSET', KEYS[3], 'id', ARGV[3])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[6], string.format('%d-0', version), 'previous', previous,
  'kind', 'link-forgotten', 'payload', cjson.encode({partitions = {ARGV[1], ARGV[2]}}), 'id', ARGV[3],
  'atMs', string.format('%d', now), 'by', ARGV[4], 'reason', ARGV[5])
return {'forgotten', known}
