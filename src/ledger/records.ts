/** What Redis and files hold of the ledger, parsed at the border. */
import { z } from 'zod';
import { scalar } from '../config/terms.ts';
import type { Ownership } from '../core/ownership.ts';
import type { LedgerRecord } from '../core/ports.ts';
import type { Rules } from '../core/view.ts';

const store = z.enum(['legacy', 'app']);
const counted = z.int().min(0);
const stamp = { version: counted, transitionId: z.string(), changedAtMs: z.number() };
const open = { phase: z.literal('open'), owner: store, epoch: counted };
const fenced = {
  phase: z.literal('fenced'),
  owner: store,
  to: store,
  epoch: counted,
  attempt: z.string(),
  deadlineMs: z.number(),
};
const committed = { phase: z.literal('committed'), owner: store, epoch: counted, attempt: z.string() };

const recordSchema = z.discriminatedUnion('phase', [
  z.object({ ...open, ...stamp }),
  z.object({ ...fenced, ...stamp }),
  z.object({ ...committed, ...stamp }),
]);

export const ownershipSchema: z.ZodType<Ownership> = z
  .discriminatedUnion('phase', [z.object(open), z.object(fenced), z.object(committed)])
  .transform(shared);

export const rulesSchema = z.object({ hash: z.string(), newPartitions: store });
export const positionSchema = z.object({ version: counted, id: z.string() });
/** What the registry holds of one partition. */
export const attributesSchema = z.record(z.string(), scalar);

export function parseRules(text: string): Rules {
  return rulesSchema.parse(JSON.parse(text));
}

/** Open partitions are alike but for owner and epoch: those of a large ledger share a few objects. */
const opens = new Map<string, Ownership>();
const opensMax = 1_000;

function shared(ownership: Ownership): Ownership {
  if (ownership.phase !== 'open') return ownership;
  const key = `${ownership.owner} ${ownership.epoch}`;
  const known = opens.get(key);
  if (known !== undefined) return known;
  if (opens.size >= opensMax) opens.clear();
  opens.set(key, ownership);
  return ownership;
}

/** The same text is read many times: as what a change found, as what it left, by each feed of a process. */
const recent = new Map<string, LedgerRecord>();
const recentMax = 2_000;

export function parseRecord(text: string): LedgerRecord {
  const known = recent.get(text);
  if (known !== undefined) return known;
  const record = parseRecordOnce(text);
  if (recent.size >= recentMax) recent.clear();
  recent.set(text, record);
  return record;
}

/** Without remembering it: for texts that are read in bulk. */
export function parseRecordOnce(text: string): LedgerRecord {
  const { version, transitionId, changedAtMs, ...ownership } = recordSchema.parse(JSON.parse(text));
  return { ownership: shared(ownership), version, transitionId, changedAtMs };
}
