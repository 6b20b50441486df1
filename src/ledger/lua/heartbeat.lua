-- One heartbeat of a member: is it still listed, does the ledger still hold what was confirmed to it?
--
-- KEYS  1 members (hash)  2 meta (hash)  3 transitions (stream)
-- ARGV  1 member id  2 member record (JSON)  3 confirmed version  4 confirmed transition id
-- Returns {'ok', version} | {'not-listed'} | {'ledger-regressed', sentence}
local version = tonumber(redis.call('HGET', KEYS[2], 'version') or '0')
local confirmed = tonumber(ARGV[3])
if version < confirmed then
  return {'ledger-regressed', 'the ledger is at version ' .. version .. ', but ' .. confirmed .. ' was confirmed'}
end
if confirmed > 0 then
  local entry = redis.call('XRANGE', KEYS[3], confirmed .. '-0', confirmed .. '-0')[1]
  if entry then
    for at = 1, #entry[2], 2 do
      if entry[2][at] == 'id' and entry[2][at + 1] ~= ARGV[4] then
        return {'ledger-regressed', 'the ledger holds another transition at version ' .. confirmed}
      end
    end
  end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'not-listed'} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'ok', version}
