-- One step of a restore: keeps its turn, and writes some more aside. What is written aside outlives the turn, so
-- that nothing of it has gone while the restore can still be finished.
--
-- KEYS  1 restore under way (string)  2.. what this restore writes aside (hashes)
-- ARGV  1 token  2 how long the turn lasts from now on, ms  3 place in KEYS of the hash to write to, '' for none
--       4.. fields and values
-- Returns 1, or 0 where the turn is lost; then nothing is written
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[tonumber(ARGV[3])], unpack(ARGV, 4)) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for place = 2, #KEYS do redis.call('PEXPIRE', KEYS[place], string.format('%d', 2 * tonumber(ARGV[2]))) end
return 1
