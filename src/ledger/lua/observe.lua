-- An observing proxy puts itself on the list, or renews its entry. It sends every write to the default store and can
-- be stopped by no fence, so while one is listed no partition is fenced and none is claimed for the other store
-- (transition.lua, claim.lua); and where one has moved already, it must not send anything at all.
--
-- Whom it lets write, nobody tells the registry: from then on "not in the registry" proves nothing.
--
-- KEYS  1 observers (hash)  2 partitions (hash)  3 meta (hash)
-- ARGV  1 observer id  2 its record (JSON)  3 default owner
--       4 version of the ledger at which nothing had moved, as this observer was told last; '' if it never was
-- Returns {'listed', version} | {'moved', a partition} | {'ledger-regressed', sentence}; where it was listed it stays so
--! include clock
local known = redis.call('HMGET', KEYS[3], 'version', 'regressed')
local version = known[1] or '0'
local listed = redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1
-- A ledger that lost data does not know what has moved.
if known[2] and not listed then return {'ledger-regressed', known[2]} end
if not listed or ARGV[4] ~= version then
  local cursor = '0'
  repeat
    local page = redis.call('HSCAN', KEYS[2], cursor, 'COUNT', 1000)
    cursor = page[1]
    for at = 2, #page[2], 2 do
      local record = cjson.decode(page[2][at])
      if record.phase ~= 'open' or record.owner ~= ARGV[3] then return {'moved', page[2][at - 1]} end
    end
  until cursor == '0'
end
local now = clock()
if not listed and redis.call('HDEL', KEYS[3], 'registryComplete') == 1 then
  redis.call('HSET', KEYS[3], 'registryGap', cjson.encode({member = ARGV[1], atMs = now}))
end
local record = cjson.decode(ARGV[2])
record.seenAtMs = now
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(record))
return {'listed', version}
