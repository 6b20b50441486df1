-- One change of the ledger: counted first, so that what it makes can bear its version, then appended to the stream.
local function countChange(meta, id)
  local previous = redis.call('HGET', meta, 'id') or ''
  local version = redis.call('HINCRBY', meta, 'version', 1)
  redis.call('HSET', meta, 'id', id)
  return {version = version, id = id, previous = previous}
end

-- `kept`: stream length kept; behind the reason what was changed, names and values by turns.
local function appendChange(changes, kept, change, by, reason, ...)
  redis.call('XADD', changes, 'MAXLEN', '~', kept, string.format('%d-0', change.version), 'previous', change.previous,
    'id', change.id, 'by', by, 'reason', reason, ...)
end
