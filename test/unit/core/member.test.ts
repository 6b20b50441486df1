import { beforeEach, describe, expect, test } from '@jest/globals';
import { Member, type Instant, type MemberEffect } from '../../../src/core/member.ts';
import type { Ownership } from '../../../src/core/ownership.ts';
import type { WriteTicket } from '../../../src/core/ticket.ts';
import type { LedgerChange, Transition } from '../../../src/core/view.ts';

const settings = {
  leaseMs: 1_000,
  marginMs: 100,
  settleMs: { legacy: 500, app: 0 },
  defaultOwner: 'legacy',
} as const;

let member: Member;
let version = 0;

const at = (ms: number, wallMs = ms): Instant => ({ monotonicMs: ms, wallMs });
const fence = (attempt: string): Ownership => ({
  phase: 'fenced',
  owner: 'legacy',
  to: 'app',
  epoch: 2,
  attempt,
  deadlineMs: 9_999,
});
const openAt = (owner: 'legacy' | 'app', epoch: number): Ownership => ({ phase: 'open', owner, epoch });

function transition(partition: string, after: Ownership): Transition {
  version += 1;
  const before = openAt('legacy', 1);
  return {
    kind: 'ownership',
    version,
    previousId: member.view.position.id,
    id: `t${version}`,
    partition,
    before,
    after,
    atMs: 0,
    by: 'test',
    reason: '',
  };
}

function follow(partition: string, after: Ownership, now: Instant): MemberEffect[] {
  return member.apply(transition(partition, after), now);
}

function beat(now: Instant, ledgerVersion = version): MemberEffect[] {
  return member.heartbeatConfirmed(member.heartbeat(now), ledgerVersion);
}

function admitted(partition: string, now: Instant): WriteTicket {
  const admission = member.admit(partition, now);
  if (admission.verdict !== 'admit') throw new Error(`not admitted: ${JSON.stringify(admission)}`);
  return admission.ticket;
}

beforeEach(() => {
  version = 0;
  member = new Member(settings, at(0));
  member.load({ position: { version: 0, id: '' }, partitions: [] }, at(0));
  beat(at(0));
});

describe('the lease', () => {
  const lapsed = { verdict: 'refuse', code: 'lease-lapsed' };

  test('admits nothing before the first confirmed heartbeat', () => {
    const fresh = new Member(settings, at(0));
    expect(fresh.admit('u', at(0))).toEqual(lapsed);
  });

  test('lapses a margin early, counted from when the heartbeat was sent', () => {
    const heartbeat = member.heartbeat(at(100));
    member.heartbeatConfirmed(heartbeat, 0);
    admitted('u', at(999));
    expect(member.admit('u', at(1_000))).toEqual(lapsed);
  });

  test('lapses when either clock says so', () => {
    expect(member.admit('u', at(10, 900))).toEqual(lapsed);
    expect(member.admit('u', at(900, 10))).toEqual(lapsed);
    admitted('u', at(10, 10));
  });

  test('is renewed only when the view has applied the version that the ledger named', () => {
    const heartbeat = member.heartbeat(at(800));
    member.heartbeatConfirmed(heartbeat, 1);
    expect(member.admit('u', at(950))).toEqual(lapsed);
    follow('other', openAt('app', 4), at(960));
    admitted('u', at(970));
  });

  test('that lapsed and came back does not continue an upload of before', () => {
    const ticket = admitted('u', at(10));
    expect(member.mayContinue(ticket, at(20))).toBe(true);
    expect(member.mayContinue(ticket, at(900))).toBe(false);
    beat(at(1_500));
    expect(member.mayContinue(ticket, at(1_600))).toBe(false);
    expect(member.mayContinue(admitted('u', at(1_600)), at(1_700))).toBe(true);
  });

  test('that was renewed in time continues an upload', () => {
    const ticket = admitted('u', at(10));
    beat(at(600));
    expect(member.mayContinue(ticket, at(1_400))).toBe(true);
  });
});

describe('a fence', () => {
  const acknowledged = (effects: MemberEffect[]): unknown[] =>
    effects.flatMap((effect) => (effect.kind === 'acknowledge' ? [effect.acknowledgement] : []));

  test('is acknowledged at once when nothing is in flight', () => {
    expect(acknowledged(follow('u', fence('a'), at(50)))).toEqual([
      { partition: 'u', attempt: 'a', epoch: 2, answer: 'drained', lastWriteAgeMs: 50, settlesInMs: 0 },
    ]);
  });

  test('is acknowledged only when the last write in flight has ended', () => {
    const first = admitted('u', at(1));
    const second = admitted('u', at(2));
    expect(acknowledged(follow('u', fence('a'), at(3)))).toEqual([]);
    expect(acknowledged(member.end(first, 'ended', at(4)))).toEqual([]);
    expect(acknowledged(member.end(second, 'ended', at(10)))).toEqual([
      { partition: 'u', attempt: 'a', epoch: 2, answer: 'drained', lastWriteAgeMs: 0, settlesInMs: 0 },
    ]);
  });

  test('waits for no other partition', () => {
    admitted('other', at(1));
    expect(acknowledged(follow('u', fence('a'), at(3)))).toHaveLength(1);
  });

  test('is refused at once when a write is in doubt, and not when it has settled', () => {
    member.end(admitted('u', at(1)), 'in-doubt', at(2));
    expect(acknowledged(follow('u', fence('a'), at(400)))).toMatchObject([
      { answer: 'in-doubt', settlesInMs: 102 },
    ]);
    follow('u', openAt('legacy', 3), at(410));
    expect(acknowledged(follow('u', { ...fence('b'), epoch: 4 }, at(503)))).toMatchObject([
      { answer: 'drained', attempt: 'b', epoch: 4 },
    ]);
  });

  test('is refused when a write that was in flight ends in doubt', () => {
    const ticket = admitted('u', at(1));
    follow('u', fence('a'), at(2));
    expect(acknowledged(member.end(ticket, 'in-doubt', at(3)))).toMatchObject([{ answer: 'in-doubt' }]);
  });

  test('that is over is not acknowledged any more', () => {
    const ticket = admitted('u', at(1));
    follow('u', fence('a'), at(2));
    follow('u', openAt('legacy', 3), at(3));
    expect(acknowledged(member.end(ticket, 'ended', at(4)))).toEqual([]);
  });

  test('found in a snapshot is acknowledged too', () => {
    const joiner = new Member(settings, at(0));
    const snapshot = { position: { version: 7, id: 'x' }, partitions: [['u', fence('a')] as const] };
    expect(acknowledged(joiner.load(snapshot, at(5)))).toMatchObject([{ partition: 'u', attempt: 'a' }]);
  });

  test('that went by unseen closes long-lived writers when a snapshot shows that the partition moved', () => {
    admitted('u', at(1));
    version = 9;
    const effects = member.load(
      { position: { version: 9, id: 'x' }, partitions: [['u', openAt('app', 4)]] },
      at(2),
    );
    expect(effects).toContainEqual({ kind: 'end-long-lived', partition: 'u' });
  });

  test('closes long-lived writers of that partition', () => {
    expect(follow('u', fence('a'), at(1))).toContainEqual({ kind: 'end-long-lived', partition: 'u' });
  });
});

describe('durable before admit', () => {
  test('a release admits writes only after a heartbeat, sent after it was applied, was confirmed', () => {
    const early = member.heartbeat(at(5));
    const effects = follow('u', openAt('app', 4), at(10));
    expect(effects).toContainEqual({ kind: 'heartbeat-now' });
    member.heartbeatConfirmed(early, 1);
    expect(member.admit('u', at(20))).toEqual({ verdict: 'hold', because: 'not-yet-durable' });
    expect(beat(at(30))).toContainEqual({ kind: 'wake', partition: 'u' });
    expect(admitted('u', at(40))).toMatchObject({ owner: 'app', epoch: 4 });
  });

  test('a snapshot that was loaded in the middle admits nothing until a heartbeat confirmed it', () => {
    version = 5;
    member.load({ position: { version: 5, id: 'x' }, partitions: [['u', openAt('app', 4)]] }, at(10));
    expect(member.admit('u', at(20))).toEqual({ verdict: 'hold', because: 'not-yet-durable' });
    beat(at(30));
    expect(admitted('u', at(40))).toMatchObject({ owner: 'app' });
  });
});

describe('the view', () => {
  test('asks for a snapshot instead of skipping a change', () => {
    version = 3;
    expect(member.apply(transition('u', openAt('app', 4)), at(1))).toEqual([{ kind: 'load-snapshot' }]);
    expect(member.ownershipOf('u')).toEqual(openAt('legacy', 1));
  });

  test('asks for a snapshot when the next number follows another change than the one it has', () => {
    follow('u', fence('a'), at(1));
    const next = { ...transition('u', openAt('legacy', 3)), previousId: 'what a failover put in its place' };
    expect(member.apply(next, at(2))).toEqual([{ kind: 'load-snapshot' }]);
    expect(member.ownershipOf('u')).toEqual(fence('a'));
  });

  test('that went back wakes what was held, when its lease begins anew', () => {
    follow('u', fence('a'), at(1));
    member.viewAhead();
    member.load({ position: { version: 0, id: '' }, partitions: [] }, at(2));
    version = 0;
    expect(beat(at(3))).toEqual([{ kind: 'wake' }]);
    expect(beat(at(4))).toEqual([]);
    admitted('u', at(5));
  });

  test('that is ahead of the ledger takes in nothing, and admits nothing, before it has gone back', () => {
    follow('u', fence('a'), at(1));
    beat(at(2));
    member.viewAhead();
    expect(member.admit('v', at(3))).toMatchObject({ verdict: 'refuse', code: 'lease-lapsed' });
    expect(follow('u', openAt('legacy', 3), at(4))).toEqual([]);
    expect(member.ownershipOf('u')).toEqual(fence('a'));
  });

  test('goes back when the ledger has lost what nobody had acted upon, but never behind what was confirmed', () => {
    follow('u', fence('a'), at(1));
    beat(at(2));
    follow('u', openAt('legacy', 3), at(3));
    expect(member.viewAhead()).toEqual([{ kind: 'load-snapshot' }]);
    member.load({ position: { version: 0, id: '' }, partitions: [] }, at(4));
    expect(member.ownershipOf('u')).toEqual(openAt('legacy', 3));
    member.load({ position: { version: 1, id: 't1' }, partitions: [['u', fence('a')]] }, at(5));
    expect(member.ownershipOf('u')).toEqual(fence('a'));
    expect(member.view.position).toEqual({ version: 1, id: 't1' });
  });

  test('never goes back to an older snapshot', () => {
    follow('u', fence('a'), at(1));
    member.load({ position: { version: 0, id: '' }, partitions: [] }, at(2));
    expect(member.ownershipOf('u')).toMatchObject({ phase: 'fenced' });
  });
});

describe('the active rules', () => {
  const governed = { ...settings, rulesHash: 'mine' };
  const rules = (hash: string, newPartitions: 'legacy' | 'app' = 'legacy'): LedgerChange => {
    version += 1;
    return {
      ...{
        kind: 'rules',
        version,
        previousId: member.view.position.id,
        id: `r${version}`,
        atMs: 0,
        by: 'test',
        reason: '',
      },
      rules: { hash, newPartitions },
    };
  };
  const enter = (): void => {
    member = new Member(governed, at(0));
    expect(member.enter()).toEqual([{ kind: 'register' }]);
    expect(member.registered()).toEqual([{ kind: 'load-snapshot' }]);
    member.load({ position: { version: 0, id: '' }, partitions: [] }, at(0));
    beat(at(0));
  };

  test('hold every write while they are not those of this process', () => {
    enter();
    expect(member.admit('u', at(1))).toEqual({ verdict: 'hold', because: 'rules-not-active' });
    member.apply(rules('others'), at(2));
    beat(at(3));
    expect(member.admit('u', at(4))).toEqual({ verdict: 'hold', because: 'rules-not-active' });
  });

  test('let writes in only once a heartbeat has confirmed that they are active', () => {
    enter();
    expect(member.apply(rules('mine'), at(2))).toEqual([{ kind: 'heartbeat-now' }]);
    expect(member.admit('u', at(3))).toEqual({ verdict: 'hold', because: 'not-yet-durable' });
    expect(beat(at(4))).toContainEqual({ kind: 'wake' });
    admitted('u', at(5));
  });

  test('under which new partitions begin at the app hold the first write of one that may be new', () => {
    enter();
    member.apply(rules('mine', 'app'), at(2));
    beat(at(3));
    expect(member.admit('new', at(4))).toEqual({ verdict: 'hold', because: 'unclaimed' });
    expect(member.findAtHome('old')).toEqual([{ kind: 'wake', partition: 'old' }]);
    expect(admitted('old', at(5))).toMatchObject({ owner: 'legacy', epoch: 1 });
    follow('new', openAt('app', 2), at(6));
    beat(at(7));
    expect(admitted('new', at(8))).toMatchObject({ owner: 'app', epoch: 2 });
  });
});

describe('a member that serves what it knows last', () => {
  beforeEach(() => {
    member = new Member({ ...settings, unexpirable: true }, at(0));
    member.load({ position: { version: 0, id: '' }, partitions: [] }, at(0));
  });

  test('admits nothing before it ever held a lease, and goes on without one afterwards', () => {
    expect(member.admit('u', at(0))).toMatchObject({ verdict: 'refuse' });
    beat(at(1));
    const ticket = admitted('u', at(1_000_000));
    expect(member.mayContinue(ticket, at(2_000_000))).toBe(true);
  });

  test('admits nothing once it was taken off the list', () => {
    beat(at(1));
    member.loseLease();
    expect(member.admit('u', at(2))).toMatchObject({ verdict: 'refuse' });
  });
});

describe('a member that leaves', () => {
  test.each([false, true])(
    'admits nothing more, whatever is confirmed later (unexpirable: %s)',
    (unexpirable) => {
      member = new Member({ ...settings, unexpirable }, at(0));
      member.load({ position: { version: 0, id: '' }, partitions: [] }, at(0));
      beat(at(1));
      const ticket = admitted('u', at(2));
      const underWay = member.heartbeat(at(3));
      member.retire();
      expect(member.heartbeatConfirmed(underWay, version)).not.toContainEqual({ kind: 'wake' });
      expect(member.admit('u', at(4))).toMatchObject({ verdict: 'refuse' });
      expect(member.mayContinue(ticket, at(4))).toBe(false);
      beat(at(5));
      expect(member.fork().admit('u', at(6))).toMatchObject({ verdict: 'refuse' });
    },
  );
});

describe('a write in doubt that an operator has resolved', () => {
  test('does not stop a fence any more', () => {
    member.end(admitted('u', at(1)), 'in-doubt', at(2));
    const resolved = {
      kind: 'doubt-resolved',
      partition: 'u',
      atMs: 0,
      by: 'ops',
      reason: 'looked',
    } as const;
    version += 1;
    member.apply({ ...resolved, version, previousId: member.view.position.id, id: 'd' }, at(3));
    expect(follow('u', fence('a'), at(4))).toContainEqual(
      expect.objectContaining({ acknowledgement: expect.objectContaining({ answer: 'drained' }) }),
    );
  });
});

test('a fork goes its own way', () => {
  const twin = member.fork();
  expect(twin.describe(at(5))).toEqual(member.describe(at(5)));
  admitted('u', at(1));
  member.apply(transition('u', fence('a')), at(1));
  expect(twin.inFlight('u')).toBe(0);
  expect(twin.ownershipOf('u')).toEqual(openAt('legacy', 1));
  expect(twin.admit('u', at(2))).toMatchObject({ verdict: 'admit' });
});

describe('leaving', () => {
  test('is possible only with nothing in flight and nothing in doubt', () => {
    const ticket = admitted('u', at(1));
    expect(member.quiet(at(2))).toBe(false);
    member.end(ticket, 'in-doubt', at(3));
    expect(member.quiet(at(502))).toBe(false);
    expect(member.quiet(at(503))).toBe(true);
  });

  test('a write that ends twice is a bug that shows', () => {
    const ticket = admitted('u', at(1));
    member.end(ticket, 'ended', at(2));
    expect(() => member.end(ticket, 'ended', at(3))).toThrow('ended twice');
  });
});
