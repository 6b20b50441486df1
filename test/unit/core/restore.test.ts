/** Who owns a partition after a restore, from what is still known of it. */
import { describe, expect, test } from '@jest/globals';
import type { Ownership } from '../../../src/core/ownership.ts';
import {
  type Evidence,
  evidenceOf,
  evidenceOfGuard,
  restorePartition,
  type SourceKind,
} from '../../../src/core/restore.ts';

const of = (ownership: Ownership, kind: SourceKind = 'member'): Evidence => evidenceOf(ownership, kind, kind);
const open = (owner: 'legacy' | 'app', epoch: number, kind?: SourceKind): Evidence =>
  of({ phase: 'open', owner, epoch }, kind);
const guard = (row: Parameters<typeof evidenceOfGuard>[0]): Evidence => {
  const evidence = evidenceOfGuard(row);
  if (evidence === undefined) throw new Error('no evidence');
  return evidence;
};
const restored = (...evidence: Evidence[]) => restorePartition(evidence, 'legacy', undefined);

describe('a restored partition', () => {
  test('goes to the owner under the highest epoch, with an epoch above every one found', () => {
    expect(restored(open('legacy', 3), open('app', 4, 'export'), open('legacy', 1, 'ledger'))).toMatchObject({
      restored: 'open',
      owner: 'app',
      epoch: 14,
      because: { kind: 'export' },
    });
  });

  test('gets an epoch above the guard, whoever knows the owner', () => {
    const seen = guard({ epoch: 9, owner: 'app', closed: true, written: true });
    expect(restorePartition([open('app', 8), seen], 'legacy', 'member')).toMatchObject({
      owner: 'app',
      epoch: 19,
    });
  });

  test('that was fenced stays with its old owner, and one that was committed with its new one', () => {
    const fenced = {
      phase: 'fenced',
      owner: 'legacy',
      to: 'app',
      epoch: 2,
      attempt: 'a',
      deadlineMs: 1,
    } as const;
    expect(restored(of(fenced))).toMatchObject({ owner: 'legacy', epoch: 12 });
    const committed = { phase: 'committed', owner: 'app', epoch: 3, attempt: 'a' } as const;
    expect(restored(of(fenced), of(committed, 'export'))).toMatchObject({ owner: 'app', epoch: 13 });
  });

  test('that nothing ever touched is left as it is', () => {
    expect(restored()).toEqual({ restored: 'untouched' });
    expect(restored(guard({ epoch: 1, owner: 'legacy', closed: false }))).toEqual({ restored: 'untouched' });
  });

  test('is a conflict where two owners stand under one epoch, until one source is preferred', () => {
    const both = [open('app', 4), open('legacy', 4, 'ledger')];
    expect(restored(...both)).toEqual({
      restored: 'conflict',
      detail: 'under the same epoch 4 member says app, ledger says legacy',
    });
    expect(restorePartition(both, 'legacy', 'ledger')).toMatchObject({ owner: 'legacy', epoch: 14 });
    expect(restorePartition(both, 'legacy', 'export')).toMatchObject({ restored: 'conflict' });
  });
});

describe('the guard of the app', () => {
  test('knows the owner where it accepted a write or a copy under its epoch', () => {
    const written = guard({ epoch: 4, owner: 'app', closed: false, written: true });
    expect(restored(open('legacy', 1), written)).toMatchObject({ owner: 'app', epoch: 14 });
    const copied = guard({ epoch: 6, owner: 'legacy', closed: false, written: false });
    expect(restored(open('app', 4), copied)).toMatchObject({ owner: 'legacy', epoch: 16 });
  });

  test('that was sealed and took no write lets the partition go back to legacy: nothing is lost by that', () => {
    const sealed = guard({ epoch: 2, owner: 'app', closed: true, written: false });
    expect(restored(open('legacy', 1), sealed)).toMatchObject({ owner: 'legacy', epoch: 12 });
  });

  test('but whoever has seen the commit knows better', () => {
    const sealed = guard({ epoch: 2, owner: 'app', closed: true, written: false });
    const committed = of({ phase: 'committed', owner: 'app', epoch: 3, attempt: 'a' });
    expect(restored(sealed, committed)).toMatchObject({ owner: 'app', epoch: 13 });
  });

  test('that is ahead of everybody and does not say who owns is a conflict', () => {
    const advanced = guard({ epoch: 5, owner: 'app', closed: true, written: true });
    expect(restored(open('app', 4), advanced)).toMatchObject({ restored: 'conflict' });
    expect(restored(open('app', 4), guard({ epoch: 5 }))).toMatchObject({
      detail:
        'the guard of the app has seen epoch 5, and the newest that names an owner is member with app, epoch 4',
    });
  });

  test('that never heard of the partition says nothing', () => {
    expect(evidenceOfGuard({ epoch: 0, owner: 'legacy', closed: false })).toBeUndefined();
    expect(evidenceOfGuard({})).toBeUndefined();
  });
});
