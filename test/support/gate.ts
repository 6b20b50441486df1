/** A WriteGate around core's real Member, whose ledger and clock are driven by the test. */
import { Member, type MemberEffect, type WriteOutcome } from '../../src/core/member.ts';
import { touchedBy, type WriteTicket } from '../../src/core/ticket.ts';
import {
  applyOrder,
  isRefusal,
  type Ownership,
  type StoreName,
  type TransitionOrder,
} from '../../src/core/ownership.ts';
import type { WriteGate } from '../../src/core/ports.ts';

export interface TestGate extends WriteGate {
  readonly member: Member;
  /** How each write ended, in order. */
  readonly endings: { readonly partition: string; readonly outcome: WriteOutcome }[];
  readonly noticed: Set<string>;
  /** Orders a transition, applies it, and confirms it durably unless told otherwise. */
  order(partition: string, order: TransitionOrder, confirm?: boolean): Ownership;
  /** Fence, commit and release to the other store. */
  move(partition: string, to: StoreName): void;
  fence(partition: string, to: StoreName): void;
  /** Renews the lease and confirms everything applied. */
  confirm(): void;
  loseLease(): void;
  /** Listeners that are still there; 0 when nothing is left behind. */
  listening(): number;
}

type Listeners = Map<string, Set<() => void>>;

export function createTestGate(defaultOwner: StoreName = 'legacy'): TestGate {
  const now = { monotonicMs: 0, wallMs: 0 };
  const settings = { leaseMs: 10_000, marginMs: 0, settleMs: { legacy: 30_000, app: 0 }, defaultOwner };
  const member = new Member(settings, now);
  const wakes: Listeners = new Map();
  const endings: { partition: string; outcome: WriteOutcome }[] = [];
  const closings: Listeners = new Map();
  const noticed = new Set<string>();
  let version = 0;

  const act = (effects: readonly MemberEffect[]): void => {
    for (const effect of effects) {
      if (effect.kind === 'end-long-lived') call(closings.get(effect.partition));
      if (effect.kind !== 'wake') continue;
      if (effect.partition !== undefined) call(wakes.get(effect.partition));
      else for (const listeners of wakes.values()) call(listeners);
    }
  };
  const confirm = (): void => act(member.heartbeatConfirmed(member.heartbeat(now), version));
  const order = (partition: string, wanted: TransitionOrder, confirmed = true): Ownership => {
    const before = member.ownershipOf(partition);
    const after = applyOrder(before, wanted, 0);
    if (isRefusal(after)) throw new Error(after.detail);
    version += 1;
    const id = `t${version}`;
    act(
      member.apply(
        {
          kind: 'ownership',
          version,
          previousId: member.view.position.id,
          id,
          partition,
          before,
          after,
          atMs: 0,
          by: 'test',
          reason: 'test',
        },
        now,
      ),
    );
    if (confirmed) confirm();
    return after;
  };
  confirm();
  return {
    member,
    endings,
    noticed,
    order,
    confirm,
    fence: (partition, to) => void order(partition, { kind: 'fence', to, attempt: 'a', fenceMs: 3_000 }),
    move: (partition, to) => {
      order(partition, { kind: 'fence', to, attempt: 'a', fenceMs: 3_000 });
      order(partition, { kind: 'commit', attempt: 'a' });
      order(partition, { kind: 'release', attempt: 'a' });
    },
    loseLease: () => member.loseLease(),
    listening: () => [...wakes.values(), ...closings.values()].reduce((sum, set) => sum + set.size, 0),
    ownershipOf: (partition) => member.ownershipOf(partition),
    admit: (partition, also) => member.admit(partition, now, also),
    mayContinue: (ticket: WriteTicket) => member.mayContinue(ticket, now),
    end: (ticket, outcome) => {
      for (const { partition } of touchedBy(ticket)) endings.push({ partition, outcome });
      act(member.end(ticket, outcome, now));
    },
    onWake: (partition, listener) => listen(wakes, partition, listener),
    onEndLongLived: (partition, listener) => listen(closings, partition, listener),
    trouble: () => undefined,
    leaseLeftMs: () => member.leaseLeftMs(now),
    notice: (partition) => void noticed.add(partition),
  };
}

function listen(listeners: Listeners, partition: string, listener: () => void): () => void {
  const set = listeners.get(partition) ?? new Set();
  listeners.set(partition, set.add(listener));
  return () => void set.delete(listener);
}

function call(listeners: ReadonlySet<() => void> | undefined): void {
  for (const listener of [...(listeners ?? [])]) listener();
}
