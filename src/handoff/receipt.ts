/** The receipt of an erasure: what was removed, what still names the partition, and what nobody can promise. */
import { createHash } from 'node:crypto';
import type { Erasure, ErasureLook, ErasureReceipt, ErasureRecords } from '../core/erasure.ts';
import type { Json } from '../core/records.ts';

/** Where the name stays, and what only others can erase. */
const kept: ErasureReceipt['kept'] = [
  { place: 'ledger', what: 'the name with its owner and epoch, so that who comes back has one owner' },
  {
    place: 'ledger stream',
    what: 'the name in the last changes, acknowledgements and words about reads, until newer ones replace them',
  },
  {
    place: 'registry and directory',
    what: 'the name without attributes, and which users belong to the partition',
  },
  { place: 'cohorts, plans, flips and closed windows', what: 'the name in their lists' },
  {
    place: 'known fields',
    what: 'a few values that a store puts into fields by itself, of whichever record',
  },
  { place: 'stray watch', what: 'the name, to tell a record that comes up where the partition has left' },
  {
    place: 'audit log',
    what: 'what operators did before, by names and record ids; contents are never in it',
  },
  {
    place: 'log files and exports',
    what: 'what was written to files, such as ledger and stray exports: they are yours',
  },
  { place: 'backups', what: 'of Redis, and of both stores, with what the stores keep of deleted records' },
];

export function receiptOf(erasure: Erasure, warnings: readonly string[], endedAtMs: number): ErasureReceipt {
  const receipt = {
    erasure: erasure.id,
    partition: erasure.partition,
    orders: erasure.orders.map(({ by, reason, atMs }) => ({ by, reason, at: new Date(atMs).toISOString() })),
    endedAt: new Date(endedAtMs).toISOString(),
    removed: erasure.removed,
    forgotten: erasure.forgotten.filter(({ entries }) => entries > 0),
    kept,
    warnings,
  };
  return { ...receipt, sha256: sha256Of(receipt) };
}

/** Hex, over JSON with the members of each object in the order of their names, and no white space. */
export function sha256Of(receipt: Omit<ErasureReceipt, 'sha256'>): string {
  const plain = JSON.parse(JSON.stringify(receipt)) as Json;
  return createHash('sha256').update(canonical(plain)).digest('hex');
}

function canonical(value: Json): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  const members = Object.entries(value as Readonly<Record<string, Json>>)
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`);
  return `{${members.join(',')}}`;
}

export function warningsOf(look: ErasureLook): string[] {
  return [
    ...look.unseen.map((store) => `${store} was not looked at: it has no connector with records`),
    ...look.unreadable.map((one) => `${sayRecords(one)} without an id or a partition: look whose they are`),
    ...look.tombstones.map((one) => `${sayRecords(one)} as deleted: what it keeps of them is its own matter`),
  ];
}

/** What came up after the partition was open again. */
export function lateWarnings(look: ErasureLook): string[] {
  return look.records.map(
    (one) =>
      `${sayRecords(one)} again, since the partition was reopened: somebody came back, or a write took effect late. ` +
      'Look at them; to remove them, order another erasure',
  );
}

function sayRecords({ store, kind, records }: ErasureRecords): string {
  return `${store} shows ${records} ${kind} ${records === 1 ? 'record' : 'records'}`;
}
