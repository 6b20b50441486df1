-- Takes a member off the list, and notes when: writes that it finished may be younger than lists show.
--
-- A member that leaves by itself has told the registry of every partition it saw; one that was found dead
-- may not have, so from then on "not in the registry" proves nothing until the registry is filled again. Unless
-- it ran the active rules, and they begin new partitions at the other store: then it wrote only for partitions
-- that ledger or registry knew.
--
-- KEYS  1 members (hash)  2 meta (hash)
-- ARGV  1 member id  2 the sequence number that it was seen to stand still at, '' when it leaves by itself
-- Returns 1 if it was listed and has not sent a heartbeat since, else 0
--! include clock
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then return 0 end
if ARGV[2] ~= '' and cjson.decode(stored).sequence ~= tonumber(ARGV[2]) then return 0 end
local now = string.format('%d', clock())
if ARGV[2] ~= '' then
  local active = redis.call('HGET', KEYS[2], 'rules')
  local rules = active and cjson.decode(active) or {}
  local knewAll = rules.newPartitions == 'app' and rules.hash == cjson.decode(stored).configHash
  if not knewAll and redis.call('HDEL', KEYS[2], 'registryComplete') == 1 then
    redis.call('HSET', KEYS[2], 'registryGap', cjson.encode({member = ARGV[1], atMs = tonumber(now)}))
  end
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], 'lastDepartureMs', now)
return 1
