/** Calls for a ledger that lost data, and for the day before: export and restore. */
import { z } from 'zod';
import { sourceKinds } from '../core/restore.ts';
import { type LedgerDocument, NotALedgerDocument, parseDocument } from '../ledger/document.ts';
import type { RestoreOrder, RestoreReport } from '../ledger/restore.ts';
import { restoreAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

/** An export of some hundred thousand partitions, with attributes. */
const restoreBytes = 268_435_456;

const order = z.strictObject({
  from: z.enum(['member', 'export', 'empty']),
  reason,
  confirm: z.string().optional().describe('The word `restore`; not needed with `plan`.'),
  plan: z.boolean().default(false).describe('Only says what would be done.'),
  prefer: z.enum(sourceKinds).optional().describe('Which kind of source decides a conflict.'),
  withoutGuard: z.boolean().default(false),
  evenThoughHealthy: z.boolean().default(false),
  withoutDirectory: z
    .boolean()
    .default(false)
    .describe('Although the entries of the directory are lost, and no export brings them back.'),
});
/** As NDJSON: the order, then the lines of an export. */
const withExport = z.array(z.unknown()).min(2);

export function recoveryOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/ledger/export',
      role: 'admin',
      summary: 'Position, partitions, registry, directory and cohorts, as NDJSON that a restore takes.',
      answer: z.string(),
      run: async () => {
        if (parts.recovery === undefined) return notHere();
        return { lines: await parts.recovery.exportLedger() };
      },
    }),
    operation({
      method: 'post',
      path: '/ledger/restore',
      role: 'admin',
      summary:
        'Restores a ledger that lost data from what is still known of it; as NDJSON with an export behind the order.',
      changes: true,
      body: z.union([order, withExport]),
      ndjson: true,
      bodyBytes: restoreBytes,
      answer: restoreAnswer,
      run: ({ body }) => (Array.isArray(body) ? restoreWith(parts, body) : restore(parts, body, undefined)),
    }),
  ];
}

async function restoreWith(parts: AdminParts, [first, ...lines]: readonly unknown[]): Promise<Reply> {
  const given = order.safeParse(first);
  if (!given.success) {
    const { path, message } = given.error.issues[0] ?? { path: [], message: 'is not a restore order' };
    return invalid(`line 1: ${path.join('.')} ${message}`);
  }
  try {
    return await restore(parts, given.data, parseDocument(lines));
  } catch (error) {
    if (error instanceof NotALedgerDocument)
      return invalid(`This is no export of a ledger: ${error.message}`);
    throw error;
  }
}

async function restore(
  parts: AdminParts,
  { reason: why, confirm, ...wanted }: z.output<typeof order>,
  document: LedgerDocument | undefined,
): Promise<Reply> {
  if (parts.recovery === undefined) return notHere();
  if (!wanted.plan && confirm !== 'restore') {
    const detail = 'Nothing was done. Confirm with the word "restore", or ask for the plan first.';
    return { problem: { code: 'not-confirmed', detail } };
  }
  if (wanted.from === 'export' && document === undefined) return invalid('from: export needs the export');
  const { partition: rules } = parts.rules?.() ?? parts.config;
  const usesDirectory = rules.some((rule) => 'directory' in rule);
  const asked: RestoreOrder = { ...wanted, prefer: wanted.prefer, document, usesDirectory };
  const done = await parts.recovery.restore(asked);
  if ('refused' in done) {
    const { refused, detail, conflicts } = done;
    const blocked = conflicts?.map((conflict) => ({ ...conflict, code: 'restore-conflict' }));
    return { problem: { code: refused, detail, ...(blocked && { members: { blocked } }) } };
  }
  if (done.restored && parts.window !== undefined && done.partitions.app > 0) {
    const detail =
      'the rollback windows of everybody in the app were closed by the restore, because nobody knows which were before; "onewriter window open COHORT" opens them again';
    parts.log('warn', 'sync.windows-closed', { partitions: done.partitions.app, detail });
  }
  const change = {
    action: wanted.plan ? 'ledger.restore-plan' : 'ledger.restore',
    target: `from ${wanted.from}`,
    reason: why,
    before: { sources: done.sources },
    after: afterOf(done),
  };
  return { answer: { ...done, rollbackWindow: parts.window === undefined ? 'off' : 'on' }, change };
}

function afterOf({ restored, version, partitions, conflictCount }: RestoreReport) {
  return { restored, version, partitions, conflictCount };
}

function invalid(message: string): Reply {
  return { problem: { code: 'invalid-request', detail: `Nothing was done. ${message}.` } };
}

function notHere(): Reply {
  return {
    problem: {
      code: 'not-available-yet',
      detail: 'This process has no part that restores. Nothing was done.',
    },
  };
}
