/** Calls about single partitions: which store, which cohorts and why; the list. */
import { z } from 'zod';
import { selects } from '../core/cohort.ts';
import type { NamedCohort } from '../core/flip.ts';
import type { LedgerRecord } from '../core/ports.ts';
import { explainAnswer, partitionAnswer, partitionsAnswer } from './answers.ts';
import { type Census, takeCensus } from './census.ts';
import { noSuchUser } from './directory.ts';
import { unsettledOf } from './doubts.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { pageOfNames, pageQuery } from './pages.ts';
import { type AdminParts, censusParts } from './parts.ts';
import { registryState } from './registry.ts';
import { name } from './terms.ts';

const explainQuery = z
  .strictObject({ user: name.optional(), partition: name.optional() })
  .refine((query) => (query.user === undefined) !== (query.partition === undefined), {
    error: 'give exactly one of user and partition',
  });

/** Longest between the records that a restore writes and its entry in the audit log. */
const restoreWithinMs = 3_600_000;
const entriesLookedAt = 1_000;
const linksNamed = 100;
const restoredSchema = z.object({ restored: z.literal(true), version: z.int() });

export function partitionOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/explain',
      role: 'viewer',
      summary: 'Which store takes the writes of a user or a partition, and why.',
      query: explainQuery,
      answer: explainAnswer,
      run: ({ query }) => explain(parts, query),
    }),
    operation({
      method: 'get',
      path: '/partitions',
      role: 'viewer',
      summary: 'All partitions of the registry or touched by a transition, by name.',
      query: pageQuery,
      answer: partitionsAnswer,
      run: async ({ query }) => {
        const census = await takeCensus(censusParts(parts));
        const { names, ...next } = pageOfNames(census.names(), query.cursor, query.limit);
        const registry = await registryState(parts);
        return { answer: { partitions: names.map((partition) => census.of(partition)), registry, ...next } };
      },
    }),
    operation({
      method: 'get',
      path: '/partitions/:id',
      role: 'viewer',
      summary: 'One partition.',
      answer: partitionAnswer,
      run: async ({ parameters }) => {
        const census = await takeCensus(censusParts(parts));
        const partition = parameters['id'] ?? '';
        if (census.knows(partition)) return { answer: census.of(partition) };
        const detail = `Neither the registry nor the ledger knows "${partition}"; "onewriter partitions list" (GET /v1/partitions) shows what they know.`;
        return { problem: { code: 'no-such-partition', detail } };
      },
    }),
  ];
}

async function explain(
  parts: AdminParts,
  query: { user?: string | undefined; partition?: string | undefined },
): Promise<Reply> {
  const partition = query.partition ?? (await partitionOf(parts, query.user ?? ''));
  if (typeof partition !== 'string') return partition;
  const [census, cohorts, inDoubt, strays, linked] = await Promise.all([
    takeCensus(censusParts(parts)),
    parts.flips.cohorts(),
    unsettledOf(parts, partition),
    parts.strays?.open(),
    parts.links?.page('', linksNamed, partition),
  ]);
  const { newPartitions, complete } = await registryState(parts);
  const isNew = newPartitions === 'app' && complete && !census.knows(partition);
  const answer = {
    ...census.of(partition),
    ...(isNew ? { owner: newPartitions } : {}),
    ...(query.user === undefined ? {} : { user: query.user }),
    known: census.knows(partition),
    cohorts: cohorts.filter((cohort) => holds(cohort, census, partition)).map((cohort) => cohort.name),
    why: await why(parts, census.record(partition), isNew),
    linkedWith: (linked?.links ?? []).flatMap(({ partitions }) =>
      partitions.filter((other) => other !== partition),
    ),
    inDoubt,
    openStrays: strays?.get(partition) ?? 0,
  };
  return { answer };
}

/** Where the requests themselves say it, nobody can tell from the user alone. */
async function partitionOf({ config, rules, directory }: AdminParts, user: string): Promise<string | Reply> {
  const [first] = (rules?.() ?? config).partition;
  if (first !== undefined && 'by' in first) return user;
  if (first !== undefined && 'directory' in first) {
    return (await directory?.partitionOf(user)) ?? noSuchUser(user);
  }
  const detail =
    'The configuration finds partitions in the request, not by the user alone; ask with ?partition= instead.';
  return { problem: { code: 'partition-not-from-user', detail } };
}

function holds(cohort: NamedCohort, census: Census, partition: string): boolean {
  // A percentage or an attribute selects only from the registry, so a stranger is in no such cohort.
  if (!('partitions' in cohort.selection) && !census.inRegistry(partition)) return false;
  return selects(cohort.selection, partition, census.of(partition).attributes);
}

/** The order of the restore that wrote a record; it is in the audit log soon after the record's time. */
async function restoreOf({ audit }: AdminParts, version: number, atMs: number) {
  const { entries } = await audit.page(`${atMs + restoreWithinMs}-0`, entriesLookedAt);
  return entries.find(({ action, after }) => {
    const made = restoredSchema.safeParse(after);
    return action === 'ledger.restore' && made.success && made.data.version === version;
  });
}

async function why(parts: AdminParts, record: LedgerRecord | undefined, isNew: boolean) {
  if (record === undefined || record.version === 0) {
    const sentence = isNew
      ? 'Nobody has seen it; its first write begins it in the app.'
      : 'No transition ever touched it; such partitions live in legacy.';
    return { sentence, version: 0, transitionId: '', atMs: 0 };
  }
  const { version, transitionId, changedAtMs: atMs } = record;
  const made = await parts.transition?.(version);
  const at = new Date(atMs).toISOString();
  if (made === undefined || made.id !== transitionId) {
    const restore = await restoreOf(parts, version, atMs);
    if (restore === undefined) {
      return { sentence: `Transition ${version} at ${at} made it so.`, version, transitionId, atMs };
    }
    const { target, actor: by, reason } = restore;
    const sentence = `Restored ${target} at ${at}, ordered by ${by}: ${reason}`;
    return { sentence, version, transitionId, atMs, by, reason };
  }
  const sentence = `${made.before.phase} (${made.before.owner}) became ${made.after.phase} (${made.after.owner}) at ${at}, ordered by ${made.by}: ${made.reason}`;
  return { sentence, version, transitionId, atMs, by: made.by, reason: made.reason };
}
