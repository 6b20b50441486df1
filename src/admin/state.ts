/** Calls that show how things stand: status, sync, members, the audit log. */
import { z } from 'zod';
import { auditAnswer, membersAnswer, statusAnswer, syncAnswer } from './answers.ts';
import { auditId } from './audit.ts';
import { takeCensus } from './census.ts';
import { noSuchCohort } from './cohorts.ts';
import { newestFirst } from './flips.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { pageQuery } from './pages.ts';
import { type AdminParts, censusParts, countDeadLetters } from './parts.ts';

const flipsShown = 20;

export function stateOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/status',
      role: 'viewer',
      summary: 'Where writes go, flips, lag, dead letters and members at a glance, of all or of one cohort.',
      query: z.strictObject({ cohort: z.string().min(1).max(100).optional() }),
      answer: statusAnswer,
      run: ({ query }) => status(parts, query.cohort),
    }),
    operation({
      method: 'get',
      path: '/sync',
      role: 'viewer',
      summary: 'How late the copies are, what could not be copied, what the connectors can do.',
      answer: syncAnswer,
      run: async () => {
        const [lagMs, deadLetters] = await Promise.all([parts.copies.lagMs(), countDeadLetters(parts)]);
        const capabilities = (parts.readers ?? []).flatMap((reader) =>
          reader.capabilities.map((capability) => ({ store: reader.store, ...capability })),
        );
        return { answer: { lagMs: lagMs ?? null, deadLetters, capabilities } };
      },
    }),
    operation({
      method: 'get',
      path: '/members',
      role: 'viewer',
      summary: 'The proxy processes listed in the ledger.',
      answer: membersAnswer,
      run: async () => ({ answer: { members: await parts.ledger.members() } }),
    }),
    operation({
      method: 'get',
      path: '/audit',
      role: 'viewer',
      summary: 'Every change operators made, newest first.',
      query: pageQuery.extend({
        cursor: z.string().regex(auditId, 'must be the `next` of a page').optional(),
      }),
      answer: auditAnswer,
      run: async ({ query }) => ({ answer: await parts.audit.page(query.cursor, query.limit) }),
    }),
  ];
}

async function status(parts: AdminParts, cohort: string | undefined): Promise<Reply> {
  const partitions = cohort === undefined ? undefined : await parts.flips.partitionsOf(cohort);
  if (cohort !== undefined && partitions === undefined) return noSuchCohort(cohort);
  const [census, flips, lagMs, deadLetters, members, durabilityGaps] = await Promise.all([
    takeCensus(censusParts(parts)),
    parts.flips.flips(),
    parts.copies.lagMs(),
    countDeadLetters(parts),
    parts.ledger.members(),
    parts.ledger.durabilityGaps(),
  ]);
  const shown = newestFirst(flips).filter((flip) => cohort === undefined || flip.cohort === cohort);
  return {
    answer: {
      counts: census.count(partitions ?? census.names()),
      flips: shown.slice(0, flipsShown),
      lagMs: lagMs ?? null,
      deadLetters,
      members: members.length,
      durabilityGaps,
    },
  };
}
