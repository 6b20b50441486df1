-- One change that belongs to no single partition's ownership, appended to the stream.
--
-- 'rules' is granted only when every listed member runs the new ones (a member registers with its rules and
-- keeps them for life), so nobody can still have a write under way that was judged by others.
--
-- KEYS  1 meta (hash)  2 changes (stream)  3 members (hash)
-- ARGV  1 kind: 'rules' | 'doubt-resolved' | 'windows-closed'  2 payload (JSON)  3 change id  4 by  5 reason
--       6 stream length kept  7 what must be active now: the hash of the rules ('' for none); '' otherwise
-- Returns {'done', version} | {'changed', rules (JSON) or ''} | {'members-differ', id of one} | {'ledger-regressed', sentence}
--! include clock change
local known = redis.call('HMGET', KEYS[1], 'rules', 'regressed')
if known[2] then return {'ledger-regressed', known[2]} end
if ARGV[1] == 'rules' then
  local active = known[1] and cjson.decode(known[1]).hash or ''
  if active ~= ARGV[7] then return {'changed', known[1] or ''} end
  local wanted = cjson.decode(ARGV[2]).hash
  local all = redis.call('HGETALL', KEYS[3])
  for place = 1, #all, 2 do
    if cjson.decode(all[place + 1]).configHash ~= wanted then return {'members-differ', all[place]} end
  end
  redis.call('HSET', KEYS[1], 'rules', ARGV[2])
end
local change = countChange(KEYS[1], ARGV[3])
appendChange(KEYS[2], ARGV[6], change, ARGV[4], ARGV[5], 'kind', ARGV[1], 'payload', ARGV[2],
  'atMs', string.format('%d', clock()))
return {'done', change.version}
