/**
 * Copies between the stores: the handoff's own passes, a worker of the background sync, the copy lock, and
 * a copy on its way. A partition's records are one set of writes, and a copy puts the whole set that was
 * read. Mirrors src/sync/apply.ts, src/sync/desk.ts, src/sync/passes.ts and src/sync/copy-lock.ts.
 */
import type { StoreName } from '../../src/core/ownership.ts';
import type { CopyHand } from '../../src/core/records.ts';
import type { Copy, Session } from './types.ts';
import type { Action, Steps, World } from './world.ts';

const writable: readonly StoreName[] = ['legacy', 'app'];

/** How long the lock outlives a holder that only reads. */
const readingMs = 1;

/** mayCopy of src/sync/apply.ts */
export function mayCopy(world: World, partition: number, hand: CopyHand): Session | undefined {
  const decision = world.settings.core.decideCopy(world.ownership(partition), hand, writable);
  if (decision.copy === 'no') return undefined;
  return { from: decision.from, to: decision.to, epoch: decision.epoch };
}

export function lockIsFree(world: World, partition: number): boolean {
  const lock = world.locks[partition];
  return lock === undefined || world.now >= lock.until;
}

export function takeLock(world: World, partition: number, holder: string): void {
  world.locks = world.locks.with(partition, { holder, until: world.now + readingMs });
}

export function releaseLock(world: World, partition: number, holder: string): void {
  if (world.locks[partition]?.holder === holder) world.locks = world.locks.with(partition, undefined);
}

/** Nobody has taken the lock away, the ledger still says the same: now the copy may be written. */
export function ensureMayCopy(
  world: World,
  partition: number,
  holder: string,
  hand: CopyHand,
  session: Session | undefined,
): boolean {
  if (!world.settings.rules.copyAskedAtApply) return true;
  // A holder that is alive renews, so the lock is its own for as long as nobody else has it.
  if (world.locks[partition]?.holder !== holder) return false;
  const now = mayCopy(world, partition, hand);
  return (
    now !== undefined && now.from === session?.from && now.to === session.to && now.epoch === session.epoch
  );
}

export function sendCopy(
  world: World,
  partition: number,
  sender: string,
  session: Session,
  mask: number,
): void {
  const { constants, rules } = world.settings;
  const landBefore = world.now + constants.copyMs;
  const until = rules.copyLockOutlivesCopies ? landBefore : world.now + readingMs;
  world.locks = world.locks.with(partition, { holder: sender, until });
  const { to, epoch } = session;
  world.copies = [...world.copies, { partition, to, epoch, mask, landBefore, sender, frozen: false }];
}

/** After a tick: copies that did not land in time never will; the lock stands as long as they could. */
export function voidLateCopies(world: World, lost: (copy: Copy) => void): void {
  const late = world.copies.filter((copy) => !copy.frozen && world.now >= copy.landBefore);
  if (late.length === 0) return;
  world.copies = world.copies.filter((copy) => !late.includes(copy));
  late.forEach(lost);
}

/** The copy arrives; true when the store took it. */
export function landCopy(world: World, copy: Copy): boolean {
  const { core, constants } = world.settings;
  const { partition, to, epoch } = copy;
  world.copies = world.copies.filter((other) => other !== copy);
  const current = world.ownership(partition);
  if (to === 'app' && constants.guarded) {
    const verdict = core.guardVerdict(world.guardRow(partition), 'copy', epoch);
    if (!verdict.accept) {
      if (
        current.phase !== 'committed' &&
        current.owner !== to &&
        current.epoch === epoch &&
        !sealed(world, copy)
      ) {
        world.fail('I7', `the guard refuses a copy of the current epoch (${verdict.code})`);
      }
      return false;
    }
    world.setGuard(partition, verdict.row);
  }
  if (current.owner === to) world.fail('I3', `a copy of epoch ${epoch} was applied in ${to}, the owner`);
  world.setHeld(to, partition, copy.mask);
  return true;
}

/** An attempt has sealed the guard against what it sent itself: it gave that up before. */
function sealed(world: World, { partition, epoch }: Copy): boolean {
  const row = world.guardRow(partition);
  return row.owner === 'app' && row.epoch === epoch;
}

/** onewriter.advance and onewriter.seal of src/guard/guard.sql: were they taken? */
export function callGuard(world: World, call: 'advance' | 'seal', partition: number, epoch: number): boolean {
  const { core } = world.settings;
  const row = world.guardRow(partition);
  const next = call === 'advance' ? core.guardAdvance(row, epoch) : core.guardSeal(row, epoch);
  world.setGuard(partition, next);
  return next.epoch === epoch && next.closed && (call === 'advance' || next.owner === 'app');
}

const holderOf = (index: number): string => `worker${index}`;

export function workerOf(world: World, sender: string): number {
  return world.workers.findIndex((_, index) => holderOf(index) === sender);
}

/** The worker's copy landed, or was lost. */
export function workerDone(world: World, index: number, keepLock: boolean): void {
  const worker = world.workers[index];
  if (worker === undefined || worker.stage === 'idle') return;
  if (!keepLock) releaseLock(world, worker.partition, holderOf(index));
  world.workers = world.workers.with(index, { ...worker, stage: 'idle', mask: 0, session: undefined });
}

export const workerSteps: Steps = {
  'worker-reads'(world, index, partition) {
    world.spend('workerCopies');
    const session = mayCopy(world, partition, { hand: 'sync' });
    if (session === undefined) throw new Error('the worker may not copy');
    takeLock(world, partition, holderOf(index));
    const mask = world.shown(session.from, partition);
    world.workers = world.workers.with(index, { partition, stage: 'read', mask, session });
  },
  'worker-sends'(world, index) {
    const worker = world.workers[index];
    if (worker?.session === undefined) throw new Error('the worker has read nothing');
    const { partition, session, mask } = worker;
    const may = ensureMayCopy(world, partition, holderOf(index), { hand: 'sync' }, session);
    if (!may || mask === world.held(session.to, partition)) return workerDone(world, index, false);
    sendCopy(world, partition, holderOf(index), session, mask);
    world.workers = world.workers.with(index, { ...worker, stage: 'sent' });
  },
  'worker-gives-up'(world, index) {
    workerDone(world, index, false);
  },
  'freeze-copy'(world, index) {
    world.spend('frozen');
    const copy = world.copies[index];
    if (copy !== undefined) world.copies = world.copies.with(index, { ...copy, frozen: true });
  },
};

export function workerActions(world: World, index: number, out: Action[], only?: number): void {
  const worker = world.workers[index];
  switch (worker?.stage) {
    case 'idle':
      if (world.budget.workerCopies < 1) return;
      world.locks.forEach((_, partition) => {
        if (only !== undefined && partition !== only) return;
        if (!lockIsFree(world, partition) || mayCopy(world, partition, { hand: 'sync' }) === undefined)
          return;
        out.push({ step: 'worker-reads', a: index, b: partition });
      });
      return;
    case 'read':
      out.push({ step: 'worker-sends', a: index, b: -1 });
      return;
    case 'sent':
    case undefined:
  }
}

export function copyActions(world: World, index: number, out: Action[]): void {
  const copy = world.copies[index];
  if (copy === undefined) return;
  out.push({ step: 'land-copy', a: index, b: -1 });
  const guarded = copy.to === 'app' && world.settings.constants.guarded;
  if (guarded && !copy.frozen && world.budget.frozen > 0) out.push({ step: 'freeze-copy', a: index, b: -1 });
}
