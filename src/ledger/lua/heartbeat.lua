-- One heartbeat of a member: is it still listed, and does the ledger still hold what was confirmed to it?
--
-- A confirmed change that is missing, or another one in its place, proves that the ledger lost data: that is
-- noted, and refuses every transition until an operator restores. A change that was only applied, and never
-- confirmed, may have been lost by a failover; nobody acted on it, so the member just loads a snapshot.
--
-- KEYS  1 members (hash)  2 meta (hash)  3 changes (stream)
-- ARGV  1 member id; '' for a process that is no member and only asks  2 member record (JSON)
--       3 confirmed version  4 confirmed id  5 applied version  6 applied id
--       7 the file that says what was confirmed, '' where it was confirmed to the process itself
--       8 what to write with an 'ok' to no member, '' for nothing: WAIT covers only what its connection has written,
--         and behind a script that wrote nothing Redis 7.2 and later answer it at once
-- Returns {'ok', version} | {'view-ahead'} | {'not-listed'} | {'ledger-regressed', sentence}
--! include clock
local known = redis.call('HMGET', KEYS[2], 'version', 'id', 'regressed', 'restoredVersion')
local version = tonumber(known[1] or '0')
if known[3] then return {'ledger-regressed', known[3]} end

-- True, false, or nil where the entry is too old to be kept.
local function holds(at, id)
  if at == 0 then return true end
  if at > version then return false end
  if at == version then return known[2] == id end
  local entry = redis.call('XRANGE', KEYS[3], at .. '-0', at .. '-0')[1]
  if not entry then return nil end
  for place = 1, #entry[2], 2 do
    if entry[2][place] == 'id' then return entry[2][place + 1] == id end
  end
  return false
end

local confirmed = tonumber(ARGV[3])
if holds(confirmed, ARGV[4]) == false then
  local sentence = 'version ' .. confirmed .. ' was confirmed to a member, but the ledger is at version ' .. version
  if version >= confirmed then sentence = 'the ledger holds another change at version ' .. confirmed .. ' than was confirmed to a member' end
  redis.call('HSET', KEYS[2], 'regressed', sentence, 'regressedBy', ARGV[7],
    'regressedAtMs', string.format('%d', clock()))
  return {'ledger-regressed', sentence}
end
local applied = tonumber(ARGV[5])
if holds(applied, ARGV[6]) == false then return {'view-ahead'} end
-- A view of before a restore leads nowhere: its versions are not continued.
if known[4] and applied < tonumber(known[4]) then return {'view-ahead'} end
if ARGV[1] == '' then
  if ARGV[8] ~= '' then redis.call('HSET', KEYS[2], 'confirm', ARGV[8]) end
  return {'ok', version}
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'not-listed'} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'ok', version}
