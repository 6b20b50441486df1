/** Strays as operators see them: changes that somebody made in the store that does not own the partition. */
import { z } from 'zod';
import { type Stray, strayResolutions } from '../core/stray.ts';
import { strayAnswer, straysAnswer } from './findings.ts';
import type { Log } from '../log.ts';
import type { AuditLog } from './audit.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { pageOfNames, pageQuery } from './pages.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

const state = z.enum(['open', 'resolved']).optional().describe('Only such.');

export function strayOperations(parts: AdminParts): Operation[] {
  const { strays } = parts;
  if (strays === undefined) return [];
  return [
    operation({
      method: 'get',
      path: '/strays',
      role: 'viewer',
      summary: 'Changes in the store that does not own the partition, which no copy made; oldest first.',
      query: pageQuery.extend({ state }),
      answer: straysAnswer,
      run: async ({ query }) => {
        const all = new Map((await strays.list(query.state)).map((stray) => [placeOf(stray), stray]));
        const { names, ...more } = pageOfNames([...all.keys()].toSorted(), query.cursor, query.limit);
        const page = names.flatMap((name) => all.get(name) ?? []);
        return { answer: { strays: page.map(withoutContent), ...more } };
      },
    }),
    operation({
      method: 'get',
      path: '/strays/export',
      role: 'operator',
      summary: 'All of them with what the stores held, as NDJSON, one a line.',
      query: z.strictObject({ state }),
      answer: strayAnswer,
      run: async ({ query }) => ({
        lines: (await strays.list(query.state)).map((stray) => JSON.stringify(strayAnswer.parse(stray))),
      }),
    }),
    operation({
      method: 'get',
      path: '/strays/:id',
      role: 'operator',
      summary: 'One stray, with what both stores held when it was found.',
      answer: strayAnswer,
      run: async ({ parameters }) => {
        const stray = await strays.get(parameters['id'] ?? '');
        return stray === undefined ? noSuchStray() : { answer: await single(parts, stray) };
      },
    }),
    operation({
      method: 'post',
      path: '/strays/:id/resolve',
      role: 'operator',
      summary:
        "Says what became of a stray, so that it stops no flip any more. While the rollback window is open, the owner's record is copied over it then.",
      changes: true,
      body: z.strictObject({
        reason,
        how: z
          .enum(strayResolutions)
          .describe(
            'ignored: nobody needs it; repaired: it was undone in that store (if not, it is opened again); moved: it was brought to the owner by hand.',
          ),
      }),
      answer: strayAnswer,
      run: async ({ parameters, body, actor }) => {
        const id = parameters['id'] ?? '';
        const before = await strays.get(id);
        const after = await strays.resolve(id, body.how, actor.name, body.reason);
        if (before === undefined || after === undefined) return noSuchStray();
        const change = {
          ...{ action: 'stray.resolve', target: id, reason: body.reason },
          before: { state: before.state, partition: before.partition, record: before.record },
          after: { state: after.state, how: after.resolved?.how },
        };
        return { answer: await single(parts, after), change };
      },
    }),
  ];
}

async function single({ window, ledger }: AdminParts, stray: Stray): Promise<z.output<typeof strayAnswer>> {
  const { partition, store } = stray;
  const { owner } = (await ledger.read(partition)).ownership;
  const isCopiedTo = window !== undefined && owner !== store && !(await window.closed()).has(partition);
  return strayAnswer.parse({ ...stray, writtenOver: isCopiedTo });
}

/** For whoever follows the events; the log and the book of strays have it anyhow. */
export async function auditStray(audit: AuditLog, stray: Stray, log: Log): Promise<void> {
  const { id, store, partition, kind, record, change, owner, lateWrite } = stray;
  const reason =
    lateWrite === undefined
      ? `${kind} ${record} was ${change} in ${store}, and nobody of ours did it`
      : `${lateWrite.method} ${lateWrite.path}, a write in doubt, took effect in ${store} after the move`;
  const entry = { actor: 'sync', action: 'stray.found', target: id, reason, before: null };
  await audit.append({ ...entry, after: { store, partition, owner } }).catch((error: unknown) => {
    log('warn', 'audit-failed', { action: entry.action, target: id, cause: String(error) });
  });
}

function placeOf({ foundAtMs, id }: Stray): string {
  return `${String(foundAtMs).padStart(15, '0')} ${id}`;
}

function withoutContent(stray: Stray): z.output<typeof strayAnswer> {
  const { holds: _, ownerHolds: __, ...told } = strayAnswer.parse(stray);
  return told;
}

function noSuchStray(): Reply {
  const detail =
    'Nothing was changed: no stray has this id; "onewriter strays list" (GET /v1/strays) lists them.';
  return { problem: { code: 'no-such-stray', detail } };
}
