-- Ends a restore that changed nothing.
--
-- KEYS  1 meta (hash)  2 restore under way (string)  3.. what this restore wrote aside (hashes)
-- ARGV  1 token  2 '1' where the mark was set by this restore and must go, else ''
-- Returns 1 if the restore was still ours, else 0
for place = 3, #KEYS do redis.call('UNLINK', KEYS[place]) end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[2])
if ARGV[2] == '1' then redis.call('HDEL', KEYS[1], 'regressed', 'regressedBy', 'regressedAtMs') end
return 1
