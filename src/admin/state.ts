/** Calls that show how things stand: status, sync, the audit log. */
import { z } from 'zod';
import type { BackfillProgress } from '../sync/backfill.ts';
import { endOf } from '../sync/backfill-state.ts';
import type { FailingStore } from '../sync/failing-stores.ts';
import {
  auditAnswer,
  type BackfillAnswer,
  type StatusAnswer,
  statusAnswer,
  type SyncAnswer,
  syncAnswer,
} from './answers.ts';
import { auditId } from './audit.ts';
import { takeCensus } from './census.ts';
import { noSuchCohort } from './cohorts.ts';
import { newestFirst } from './flips.ts';
import { letterOperations } from './letters.ts';
import { newcomersOf } from './newcomers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { pageQuery } from './pages.ts';
import { type AdminParts, censusParts, countDeadLetters } from './parts.ts';
import { registryState } from './registry.ts';
import { windowState } from './rollback-window.ts';

const flipsShown = 20;
const doubtsNamed = 10;

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
        const [
          halts,
          troubles,
          lagMs,
          deadLetters,
          strays,
          backfills = [],
          webhooks,
          brakes = [],
          onAll,
          regression,
        ] = await Promise.all([
          haltsOf(parts),
          troublesOf(parts),
          parts.copies.lagMs(),
          countDeadLetters(parts),
          openStrays(parts),
          parts.backfills?.(),
          parts.webhooks?.(),
          parts.brakes?.list(),
          parts.brakes?.onAll(),
          parts.ledger.regression(),
        ]);
        const capabilities = (parts.readers ?? []).flatMap((reader) =>
          reader.capabilities.map((capability) => ({ store: reader.store, ...capability })),
        );
        return {
          answer: {
            ...{
              regression: regression ?? null,
              lagMs: lagMs ?? null,
              ...troubles,
              deadLetters,
              capabilities,
            },
            ...{ backfills: backfills.map(backfillAnswerOf), ...halts, openStrays: strays },
            ...{ deleteBrakes: brakes.length, deletesHeld: onAll !== undefined },
            webhooks: webhooks ?? { waiting: 0, deliveries: [] },
          },
        };
      },
    }),
    ...letterOperations(parts),
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
  if (cohort !== undefined && partitions === undefined) return noSuchCohort(parts, cohort);
  const selected = partitions && new Set(partitions);
  const [
    troubles,
    halts,
    strays,
    census,
    flips,
    lagMs,
    deadLetters,
    members,
    durabilityGaps,
    doubts,
    regression,
    window,
  ] = await Promise.all([
    troublesOf(parts),
    haltsOf(parts),
    openStrays(parts, selected),
    takeCensus(censusParts(parts)),
    parts.flips.flips(),
    parts.copies.lagMs(),
    countDeadLetters(parts),
    parts.ledger.members(),
    parts.ledger.durabilityGaps(),
    parts.doubts?.unsettled() ?? [],
    parts.ledger.regression(),
    windowState(parts),
  ]);
  const newcomers = cohort === undefined ? undefined : newcomersOf(cohort, partitions ?? [], census, flips);
  const inDoubt = doubts.filter(({ partition }) => selected?.has(partition) ?? true);
  const shown = newestFirst(flips).filter((flip) => cohort === undefined || flip.cohort === cohort);
  return {
    answer: {
      counts: census.count(partitions ?? census.names()),
      flips: shown.slice(0, flipsShown),
      lagMs: lagMs ?? null,
      ...troubles,
      ...halts,
      deadLetters,
      openStrays: strays,
      inDoubt: {
        writes: inDoubt.length,
        partitions: [...new Set(inDoubt.map(({ partition }) => partition))].slice(0, doubtsNamed),
      },
      members: members.length,
      registry: await registryState(parts),
      ...(newcomers && { newcomers }),
      durabilityGaps,
      windowsClosedByRestore: window.closedByRestore,
      regression: regression ?? null,
    },
  };
}

/** What a person must hear of who wonders why copies are late, or users get errors. */
async function troublesOf(parts: AdminParts): Promise<Pick<StatusAnswer, 'unreachable' | 'pollFailure'>> {
  const [unreachable = [], pollFailure] = await Promise.all([parts.unreachable?.(), parts.pollFailure?.()]);
  return { unreachable: [...unreachable], pollFailure: pollFailure ?? null };
}

/** Why nothing is copied: an operator's pause, or a store that fails. */
async function haltsOf({ halts }: AdminParts): Promise<Pick<StatusAnswer, 'pauses' | 'failing'>> {
  const { pauses = [], failingNow = [] } = (await halts?.read()) ?? {};

  return { pauses: [...pauses], failing: failingNow.map(failingAnswerOf) };
}

async function openStrays({ strays }: AdminParts, selected?: ReadonlySet<string>): Promise<number> {
  const open = (await strays?.open()) ?? new Map<string, number>();
  let total = 0;
  for (const [partition, count] of open) if (selected?.has(partition) ?? true) total += count;
  return total;
}

function failingAnswerOf(failing: FailingStore): SyncAnswer['failing'][number] {
  const { store, kind, detail, phase, sinceMs, changedMs, nextTryMs } = failing;
  const onTrial = phase !== 'open';
  return {
    ...{ store, kind, detail, phase: onTrial ? 'trial' : 'open', sinceMs, changedMs },
    nextTryMs: onTrial ? null : nextTryMs,
  };
}

function backfillAnswerOf(progress: BackfillProgress): BackfillAnswer {
  const { owner, kind, phase, records, total, written, rate, startedMs, restarts } = progress;
  return {
    ...{ owner, kind, phase, records, written, startedMs, restarts },
    total: total ?? null,
    perSecond: rate === undefined ? null : Math.round(10 * rate) / 10,
    endsMs: endOf(progress) ?? null,
  };
}
