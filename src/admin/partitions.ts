/** Calls about single partitions: which store, which cohorts and why; the list; the import. */
import { z } from 'zod';
import { selects } from '../core/cohort.ts';
import type { NamedCohort } from '../core/flip.ts';
import type { LedgerRecord } from '../core/ports.ts';
import { explainAnswer, importAnswer, partitionAnswer, partitionsAnswer } from './answers.ts';
import { type Census, takeCensus } from './census.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { pageOfNames, pageQuery } from './pages.ts';
import { type AdminParts, censusParts } from './parts.ts';

const name = z.string().min(1).max(512);
export const reason = z
  .string({ error: 'must say why; it goes to the audit log' })
  .trim()
  .min(1, 'must say why; it goes to the audit log')
  .max(500);

const explainQuery = z
  .strictObject({ user: name.optional(), partition: name.optional() })
  .refine((query) => (query.user === undefined) !== (query.partition === undefined), {
    error: 'give exactly one of user and partition',
  });

const attribute = z.union([z.string().max(1_000), z.number(), z.boolean(), z.null()]);
const imported = z.array(
  z.strictObject({
    partition: name,
    attributes: z
      .record(z.string().min(1).max(200), attribute)
      .refine((given) => Object.keys(given).length <= 100, { error: 'at most 100 attributes' })
      .optional(),
  }),
);
const importBody = z.union([imported, z.strictObject({ reason, partitions: imported })]);

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
        return { answer: { partitions: names.map((partition) => census.of(partition)), ...next } };
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
        const detail = `Neither the registry nor the ledger knows "${partition}"; see GET /v1/partitions.`;
        return { problem: { code: 'no-such-partition', detail } };
      },
    }),
    operation({
      method: 'post',
      path: '/partitions/import',
      role: 'operator',
      summary:
        'Adds partitions and attributes to the registry; given attributes replace those of the same name.',
      changes: true,
      query: z.strictObject({ reason: reason.optional() }),
      body: importBody,
      ndjson: true,
      answer: importAnswer,
      run: async ({ query, body }) => {
        const entries = Array.isArray(body) ? body : body.partitions;
        const why = Array.isArray(body) ? query.reason : body.reason;
        if (why === undefined) return missingReason();
        const before = await parts.registry.count();
        await parts.registry.note(
          entries.map(({ partition, attributes }) => ({ partition, ...(attributes && { attributes }) })),
        );
        const known = await parts.registry.count();
        const change = {
          action: 'partitions.import',
          target: `${entries.length} partitions`,
          reason: why,
          before: { known: before },
          after: { known },
        };
        return { answer: { imported: entries.length, known }, change };
      },
    }),
  ];
}

function missingReason(): Reply {
  const message = 'must say why; it goes to the audit log (an array or NDJSON gives it as ?reason=)';
  return {
    problem: {
      code: 'invalid-request',
      detail: `Nothing was changed. reason: ${message}.`,
      members: { problems: [{ path: 'reason', message }] },
    },
  };
}

async function explain(
  parts: AdminParts,
  query: { user?: string | undefined; partition?: string | undefined },
): Promise<Reply> {
  const byUser = parts.config.partition[0];
  if (query.user !== undefined && !(byUser !== undefined && 'by' in byUser)) {
    const detail =
      'The configuration finds partitions in the request, not by the user alone; ask with ?partition= instead.';
    return { problem: { code: 'partition-not-from-user', detail } };
  }
  const partition = query.user ?? query.partition ?? '';
  const [census, cohorts, members] = await Promise.all([
    takeCensus(censusParts(parts)),
    parts.flips.cohorts(),
    parts.ledger.members(),
  ]);
  const answer = {
    ...census.of(partition),
    ...(query.user === undefined ? {} : { user: query.user }),
    known: census.knows(partition),
    cohorts: cohorts.filter((cohort) => holds(cohort, census, partition)).map((cohort) => cohort.name),
    why: await why(parts, census.record(partition)),
    inDoubt: members.reduce((sum, member) => sum + member.inDoubt, 0),
  };
  return { answer };
}

function holds(cohort: NamedCohort, census: Census, partition: string): boolean {
  // A percentage or an attribute selects only from the registry, so a stranger is in no such cohort.
  if (!('partitions' in cohort.selection) && !census.inRegistry(partition)) return false;
  return selects(cohort.selection, partition, census.of(partition).attributes);
}

async function why(parts: AdminParts, record: LedgerRecord | undefined) {
  if (record === undefined || record.version === 0) {
    const sentence = `No transition ever touched it; such partitions live in ${parts.config.newPartitions}.`;
    return { sentence, version: 0, transitionId: '', atMs: 0 };
  }
  const { version, transitionId, changedAtMs: atMs } = record;
  const made = await parts.transition?.(version);
  const at = new Date(atMs).toISOString();
  if (made === undefined || made.id !== transitionId) {
    return { sentence: `Transition ${version} at ${at} made it so.`, version, transitionId, atMs };
  }
  const sentence = `${made.before.phase} (${made.before.owner}) became ${made.after.phase} (${made.after.owner}) at ${at}, ordered by ${made.by}: ${made.reason}`;
  return { sentence, version, transitionId, atMs, by: made.by, reason: made.reason };
}
