/**
 * The one call by which members talk to each other about writes and ask how far the copies are. It is one script, so
 * whatever its answer says was true at one moment.
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { keyPrefix, keys } from '../../ledger/connection.ts';
import { proofField } from '../progress.ts';
import { syncKeys } from '../keys.ts';

export const readsKeys = {
  /** Stream: what members say of their writes, numbered without a gap. */
  said: `${keyPrefix}:sync:reads:said`,
  /** Hash: the number of the last entry, and of the last census. */
  counts: `${keyPrefix}:sync:reads:counts`,
  /** Hash: member → when it was last heard, and the census that it has answered. */
  heard: `${keyPrefix}:sync:reads:heard`,
  /** Sorted set: member and partition that it reads the copy of, by until when. */
  interest: `${keyPrefix}:sync:reads:interest`,
} as const;

/** How many entries one call takes; and about how many are kept. */
export const entriesAtOnce = 1_000;
const entriesKept = 20_000;
/** Single marks that one answer names; of the others, only since when the oldest is owed. */
const marksAtOnce = 500;
/** More partitions with something that cannot be copied than these are not told apart: no copy is read then. */
const stuckMax = 1_000;
const noteEveryMs = 150;
const forgetMemberMs = 60_000;

// KEYS: 1 said, 2 counts, 3 heard, 4 interest, 5 members, 6 progress, 7 owed since, 8 counts of dead letters, 9 brakes.
// ARGV: 1 member, 2 not after (ms), 3 'census' or '', 4 census answered, 5 last entry known, 6 'copies'
// or '', 7 interest until so many ms from now, 8 JSON: partitions it reads, 9 JSON: [partition, 'open' or ms of settling].
const script = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[2]) then return {'late', now} end
if ARGV[3] == 'census' then redis.call('HINCRBY', KEYS[2], 'census', 1) end
local counts = redis.call('HMGET', KEYS[2], 'entries', 'census')
local entries, census = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
local listed = redis.call('HKEYS', KEYS[5])
local said = cjson.decode(ARGV[9])
for _, one in ipairs(said) do
  entries = entries + 1
  local ended = one[2] == 'open' and '' or string.format('%d', now + one[2])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ${entriesKept}, entries .. '-1', 'm', ARGV[1], 'p', one[1], 'e', ended)
end
if #said > 0 then redis.call('HSET', KEYS[2], 'entries', entries) end
local until_ = now + tonumber(ARGV[7])
for _, partition in ipairs(cjson.decode(ARGV[8])) do
  redis.call('ZADD', KEYS[4], until_, ARGV[1] .. ' ' .. partition)
end
local heard = {}
local all = redis.call('HGETALL', KEYS[3])
for at = 1, #all, 2 do heard[all[at]] = all[at + 1] end
local mine = heard[ARGV[1]]
local note = string.format('%d %d', now, tonumber(ARGV[4]))
if not mine or now - tonumber(string.match(mine, '^%d+')) >= ${noteEveryMs} or string.match(mine, '%d+$') ~= ARGV[4] then
  redis.call('HSET', KEYS[3], ARGV[1], note)
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
end
local members, isListed = {}, {}
for _, id in ipairs(listed) do
  isListed[id] = true
  table.insert(members, {id, heard[id] or ''})
end
for id, last in pairs(heard) do
  if not isListed[id] and now - tonumber(string.match(last, '^%d+')) > ${forgetMemberMs} then
    redis.call('HDEL', KEYS[3], id)
  end
end
local wanted = {}
for _, one in ipairs(said) do
  local by = 0
  for _, id in ipairs(listed) do
    local till = id ~= ARGV[1] and redis.call('ZSCORE', KEYS[4], id .. ' ' .. one[1])
    if till and tonumber(till) > now then by = 1 break end
  end
  table.insert(wanted, by)
end
local new = {}
local last = tonumber(ARGV[5])
if ARGV[3] ~= 'census' and entries > last then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], (last + 1) .. '-1', '+', 'COUNT', ${entriesAtOnce})) do
    local fields = entry[2]
    table.insert(new, {tonumber(string.match(entry[1], '^%d+')), fields[2], fields[4], fields[6]})
  end
end
local copies = false
if ARGV[6] == 'copies' then
  local stuck = 'many'
  if redis.call('HLEN', KEYS[8]) + redis.call('HLEN', KEYS[9]) <= ${stuckMax} then
    stuck = redis.call('HKEYS', KEYS[8])
    for _, partition in ipairs(redis.call('HKEYS', KEYS[9])) do table.insert(stuck, partition) end
  end
  copies = {redis.call('HGET', KEYS[6], '${proofField}') or '',
    redis.call('ZRANGE', KEYS[7], 0, ${marksAtOnce} - 1, 'WITHSCORES'), stuck}
end
return {'ok', now, entries, census, members, wanted, new, copies}`;

const sha = createHash('sha1').update(script).digest('hex');

const tuple = {
  member: z.tuple([z.string(), z.string()]),
  entry: z.tuple([z.number(), z.string(), z.string(), z.string()]),
  copies: z.tuple([z.string(), z.array(z.string()), z.union([z.literal('many'), z.array(z.string())])]),
};
const answerSchema = z.union([
  z.tuple([z.literal('late'), z.number()]),
  z.tuple([
    z.literal('ok'),
    ...([z.number(), z.number(), z.number()] as const),
    ...([z.array(tuple.member), z.array(z.number()), z.array(tuple.entry)] as const),
    tuple.copies.nullable(),
  ]),
]);
const markSchema = z.tuple([z.string(), z.string(), z.string()]);
const proofSchema = z.object({ seenMs: z.number(), wholeMs: z.number() });

/** A write of the member's has begun, or ended then, Redis's clock. */
export interface Said {
  readonly member: string;
  readonly partition: string;
  readonly endedMs: number | undefined;
}

/** What was known of the copies at one moment; Redis's clock throughout. */
export interface CopiesNow {
  /** Every change up to then, deletes among them, is in the copies, or marked as owed; absent before that was ever so. */
  readonly seenMs: number | undefined;
  /** When the last comparison of everything had begun. */
  readonly wholeMs: number | undefined;
  /** Since when the copies of these may be old. */
  readonly owedSinceMs: ReadonlyMap<string, number>;
  /** The same of all that are not named; absent where all are named. */
  readonly othersSinceMs: number | undefined;
  /** Partitions with something that is not copied until somebody looks. */
  readonly stuck: ReadonlySet<string> | 'many';
}

export interface Call {
  readonly member: string;
  /** Redis must not carry it out after this, by its clock. */
  readonly notAfterMs: number;
  readonly takeCensus: boolean;
  readonly censusAnswered: number;
  readonly lastEntry: number;
  readonly copies: boolean;
  readonly interestMs: number;
  readonly interest: readonly string[];
  /** `open`, or for how long the write, which has ended, may still take effect, ms. */
  readonly said: readonly (readonly [partition: string, state: 'open' | number])[];
}

export interface Answer {
  readonly nowMs: number;
  /** Number of the newest entry. */
  readonly entries: number;
  readonly census: number;
  /** Everybody on the ledger's list; those never heard without the rest. */
  readonly members: ReadonlyMap<string, { readonly heardMs: number; readonly census: number } | undefined>;
  /** Of what was said, in its order: does another member read the copy of that partition? */
  readonly wanted: readonly boolean[];
  /** Behind the last that was known, in order. */
  readonly heard: readonly (Said & { readonly entry: number })[];
  readonly copies: CopiesNow | undefined;
}

/** Rejects where the outcome is unknown. `late`: Redis did nothing, and says what time it is. */
export async function talk(
  redis: Redis,
  call: Call,
): Promise<({ readonly late: false } & Answer) | { readonly late: true; readonly nowMs: number }> {
  const { progress, owedSince, deadLetterCounts, brakes } = syncKeys;
  const { said, counts, heard, interest } = readsKeys;
  const names = [said, counts, heard, interest, keys.members, progress, owedSince, deadLetterCounts, brakes];
  const given = [
    ...[call.member, call.notAfterMs, call.takeCensus ? 'census' : '', call.censusAnswered],
    ...[call.lastEntry, call.copies ? 'copies' : '', call.interestMs],
    ...[JSON.stringify(call.interest), JSON.stringify(call.said)],
  ];
  const reply = await redis.evalsha(sha, names.length, ...names, ...given).catch((error: unknown) => {
    // It was not carried out: this server has not seen the script yet.
    if (!String(error).includes('NOSCRIPT')) throw error;
    return redis.eval(script, names.length, ...names, ...given);
  });
  const answer = answerSchema.parse(reply);
  if (answer[0] === 'late') return { late: true, nowMs: answer[1] };
  const [, nowMs, entries, census, members, wanted, fresh, copies] = answer;
  return {
    late: false,
    ...{ nowMs, entries, census },
    members: new Map(members.map(([id, note]) => [id, noteOf(note)])),
    wanted: wanted.map((by) => by === 1),
    heard: fresh.map(([entry, member, partition, ended]) => ({
      ...{ entry, member, partition },
      endedMs: ended === '' ? undefined : Number(ended),
    })),
    copies: copies === null ? undefined : copiesOf(copies),
  };
}

function noteOf(note: string): { heardMs: number; census: number } | undefined {
  const [heardMs = 0, census = 0] = note.split(' ').map(Number);
  return note === '' ? undefined : { heardMs, census };
}

function copiesOf([proof, marks, stuck]: z.output<typeof tuple.copies>): CopiesNow {
  const { seenMs, wholeMs } = proof === '' ? {} : proofSchema.parse(JSON.parse(proof));
  const owedSinceMs = new Map<string, number>();
  let lastMs: number | undefined;
  for (let at = 0; at < marks.length; at += 2) {
    const [partition] = markSchema.parse(JSON.parse(marks[at] ?? ''));
    lastMs = Number(marks[at + 1]);
    // Oldest first.
    if (!owedSinceMs.has(partition)) owedSinceMs.set(partition, lastMs);
  }
  return {
    ...{ seenMs, wholeMs, owedSinceMs },
    othersSinceMs: marks.length === 2 * marksAtOnce ? lastMs : undefined,
    stuck: stuck === 'many' ? stuck : new Set(stuck),
  };
}
