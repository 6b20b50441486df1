-- Which partitions users belong to. All entries are made, or none; each is a change in the stream.
--
-- A user's first entry needs nothing: who had no partition has nothing under way. A change does: it stands under
-- a fence of both partitions, and the script sees to it that they are still fenced, since a fence that has been
-- lifted proves nothing any more. A partition that nobody has claimed needs no fence: nobody can have written.
--
-- KEYS  1 meta (hash)  2 changes (stream)  3 directory (hash)  4 partitions (hash)  5 registry (hash)
-- ARGV  1 entries (JSON): [{user, partition, expected}], expected '' where there must be none
--       2 conditions (JSON): [{partition, attempt}] fenced under it, or attempt '' for one that nobody has claimed
--       3 hash of the rules that must be active, or none at all  4 change id  5 by  6 reason  7 stream length kept
-- Returns {'done', version} | {'changed', user, partition or ''} | {'not-fenced' | 'claimed', partition}
--         | {'rules-changed'} | {'ledger-regressed', sentence}
--! include clock change
local known = redis.call('HMGET', KEYS[1], 'rules', 'regressed', 'registryComplete')
if known[2] then return {'ledger-regressed', known[2]} end
if known[1] and cjson.decode(known[1]).hash ~= ARGV[3] then return {'rules-changed'} end
local now = clock()
for _, condition in ipairs(cjson.decode(ARGV[2])) do
  local stored = redis.call('HGET', KEYS[4], condition.partition)
  if condition.attempt == '' then
    if stored or not known[3] or redis.call('HEXISTS', KEYS[5], condition.partition) == 1 then
      return {'claimed', condition.partition}
    end
  else
    local record = stored and cjson.decode(stored) or {}
    if record.phase ~= 'fenced' or record.attempt ~= condition.attempt or now >= record.deadlineMs then
      return {'not-fenced', condition.partition}
    end
  end
end
local entries = cjson.decode(ARGV[1])
for _, entry in ipairs(entries) do
  local current = redis.call('HGET', KEYS[3], entry.user) or ''
  if current ~= entry.expected then return {'changed', entry.user, current} end
end
local version = 0
for place, entry in ipairs(entries) do
  local change = countChange(KEYS[1], ARGV[4] .. ':' .. place)
  version = change.version
  redis.call('HSET', KEYS[3], entry.user, entry.partition)
  appendChange(KEYS[2], ARGV[7], change, ARGV[5], ARGV[6], 'kind', 'directory',
    'payload', cjson.encode({user = entry.user, partition = entry.partition}), 'atMs', string.format('%d', now))
end
return {'done', version}
