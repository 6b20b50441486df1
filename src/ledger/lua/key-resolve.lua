-- Frees an Idempotency-Key whose write is in doubt, also one whose process died without a word.
--
-- KEYS  1 record of the key (hash)  2 keys in use of the partition (sorted set)
-- ARGV  1 record name
-- Returns {owner, epoch, at ms, key, method, member}, or {} where the write is not in doubt
--! include clock
local known = redis.call('HMGET', KEYS[1], 'state', 'doubtAtMs', 'owner', 'epoch', 'atMs', 'key', 'method', 'member')
if known[1] == 'pending' then
  if clock() < tonumber(known[2]) then return {} end
elseif known[1] ~= 'in-doubt' then
  return {}
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return {known[3], known[4], known[5], known[6], known[7], known[8]}
