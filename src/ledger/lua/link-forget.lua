-- An operator says that two partitions are not written together any more. It is a change in the stream, so that every
-- member notes the link anew before it forwards another write that joins them; and whoever fences one of the two
-- later, and has every member's acknowledgement, knows that each of them has heard of it.
--
-- KEYS  1 links (hash)  2 partners (sorted set)  3 meta (hash)  4 changes (stream)
-- ARGV  1, 2 the partitions, in the order of their names  3 change id  4 by  5 reason  6 stream length kept
-- Returns {'forgotten', what was noted (JSON)} | {'unknown'} | {'ledger-regressed', sentence}
--! include clock change
local regressed = redis.call('HGET', KEYS[3], 'regressed')
if regressed then return {'ledger-regressed', regressed} end
local link = ARGV[1] .. '\n' .. ARGV[2]
local known = redis.call('HGET', KEYS[1], link)
if not known then return {'unknown'} end
redis.call('HDEL', KEYS[1], link)
redis.call('ZREM', KEYS[2], link, ARGV[2] .. '\n' .. ARGV[1])
local change = countChange(KEYS[3], ARGV[3])
appendChange(KEYS[4], ARGV[6], change, ARGV[4], ARGV[5], 'kind', 'link-forgotten',
  'payload', cjson.encode({partitions = {ARGV[1], ARGV[2]}}), 'atMs', string.format('%d', clock()))
return {'forgotten', known}
