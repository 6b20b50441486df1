-- Stores what becomes of one partition, and appends that to the stream; needs change.lua, and KEYS that begin with
-- partitions, meta, changes. `before` is JSON, `record` the ownership that follows, a table. Returns what was stored.
local function changeOwnership(partition, before, record, now, id, by, reason, kept)
  local change = countChange(KEYS[2], id)
  record.version = change.version
  record.transitionId = id
  record.changedAtMs = now
  local after = cjson.encode(record)
  redis.call('HSET', KEYS[1], partition, after)
  appendChange(KEYS[3], kept, change, by, reason,
    'kind', 'ownership', 'partition', partition, 'before', before, 'after', after)
  return after
end
