/** A write that touches several partitions is admitted for all of them in one step, or not at all (I4). */
import { beforeEach, describe, expect, test } from '@jest/globals';
import { Member, type MemberEffect, type MemberSettings } from '../../../src/core/member.ts';
import type { Ownership, StoreName } from '../../../src/core/ownership.ts';
import type { WriteTicket } from '../../../src/core/ticket.ts';

const settings: MemberSettings = {
  ...{ leaseMs: 10_000, marginMs: 100, defaultOwner: 'legacy' },
  settleMs: { legacy: 500, app: 0 },
};

let member: Member;
let version: number;
const at = (ms: number) => ({ monotonicMs: ms, wallMs: ms });

beforeEach(() => {
  version = 0;
  member = new Member(settings, at(0));
  member.load({ position: { version: 0, id: '' }, partitions: [] }, at(0));
  confirm();
});

function confirm(): void {
  member.heartbeatConfirmed(member.heartbeat(at(0)), version);
}

function follow(partition: string, after: Ownership, confirmed = true): MemberEffect[] {
  version += 1;
  const { position } = member.view;
  const before = member.ownershipOf(partition);
  const effects = member.apply(
    {
      ...{ kind: 'ownership', version, previousId: position.id, id: `t${version}`, partition, before, after },
      ...{ atMs: 0, by: 'test', reason: '' },
    },
    at(0),
  );
  if (confirmed) confirm();
  return effects;
}

const fence = (epoch = 2): Ownership => ({
  ...{ phase: 'fenced', owner: 'legacy', to: 'app', epoch, attempt: 'a', deadlineMs: 9_999 },
});
const openAt = (owner: StoreName, epoch: number): Ownership => ({ phase: 'open', owner, epoch });

function admitted(partition: string, ...also: string[]): WriteTicket {
  const admission = member.admit(partition, at(1), also);
  if (admission.verdict !== 'admit') throw new Error(JSON.stringify(admission));
  return admission.ticket;
}

function acknowledged(effects: readonly MemberEffect[]): { partition: string; answer: string }[] {
  return effects.flatMap((effect) =>
    effect.kind === 'acknowledge'
      ? [{ partition: effect.acknowledgement.partition, answer: effect.acknowledgement.answer }]
      : [],
  );
}

describe('a write over several partitions', () => {
  test('is admitted under the epoch of each, while all are open at one owner', () => {
    follow('u1', openAt('app', 4));
    follow('u2', openAt('app', 8));
    expect(admitted('u1', 'u2')).toEqual({
      ...{ partition: 'u1', owner: 'app', epoch: 4, leaseTerm: 1 },
      also: [{ partition: 'u2', epoch: 8 }],
    });
  });

  test('is split while they live in different stores, whichever is named first, and is counted nowhere', () => {
    follow('u2', openAt('app', 4));
    const owners = [
      { partition: 'u1', owner: 'legacy' },
      { partition: 'u3', owner: 'legacy' },
      { partition: 'u2', owner: 'app' },
    ];
    expect(member.admit('u1', at(1), ['u3', 'u2'])).toEqual({ verdict: 'split', owners });
    expect(member.admit('u2', at(1), ['u1'])).toMatchObject({ verdict: 'split' });
    expect(member.totals(at(1))).toEqual({ inFlight: 0, inDoubt: 0 });
  });

  test('is held while any of them is fenced, committed or not durable yet, and is counted nowhere', () => {
    follow('u2', fence());
    expect(member.admit('u1', at(1), ['u2'])).toEqual({ verdict: 'hold', because: 'fenced' });
    expect(member.admit('u2', at(1), ['u1'])).toEqual({ verdict: 'hold', because: 'fenced' });
    follow('u2', { phase: 'committed', owner: 'app', epoch: 3, attempt: 'a' });
    expect(member.admit('u1', at(1), ['u2'])).toEqual({ verdict: 'hold', because: 'committed' });
    follow('u2', openAt('legacy', 4), false);
    expect(member.admit('u1', at(1), ['u2'])).toEqual({ verdict: 'hold', because: 'not-yet-durable' });
    expect(member.totals(at(1))).toEqual({ inFlight: 0, inDoubt: 0 });
    confirm();
    admitted('u1', 'u2');
  });

  test('does not wait for a fence where others, which are open, live apart anyway', () => {
    follow('u2', fence());
    follow('u3', openAt('app', 4));
    expect(member.admit('u1', at(1), ['u2', 'u3'])).toMatchObject({
      verdict: 'split',
      owners: [
        { partition: 'u1', owner: 'legacy' },
        { partition: 'u3', owner: 'app' },
      ],
    });
  });

  test('after a fence goes to where all of them are by then, or is split', () => {
    follow('u1', openAt('app', 4));
    follow('u2', fence());
    expect(member.admit('u1', at(1), ['u2'])).toEqual({ verdict: 'hold', because: 'fenced' });
    follow('u2', openAt('app', 4));
    expect(admitted('u1', 'u2').owner).toBe('app');
    follow('u2', openAt('legacy', 7));
    expect(member.admit('u1', at(1), ['u2'])).toMatchObject({ verdict: 'split' });
  });

  test('keeps a fence of any of them waiting until it has ended', () => {
    const ticket = admitted('u1', 'u2', 'u3');
    expect(acknowledged(follow('u3', fence()))).toEqual([]);
    expect(acknowledged(follow('u4', fence()))).toEqual([{ partition: 'u4', answer: 'drained' }]);
    expect(acknowledged(member.end(ticket, 'ended', at(2)))).toEqual([
      { partition: 'u3', answer: 'drained' },
    ]);
    expect(acknowledged(follow('u1', fence()))).toEqual([{ partition: 'u1', answer: 'drained' }]);
  });

  test('that ends in doubt is in doubt for each of them', () => {
    const ticket = admitted('u1', 'u2');
    follow('u2', fence());
    expect(acknowledged(member.end(ticket, 'in-doubt', at(2)))).toEqual([
      { partition: 'u2', answer: 'in-doubt' },
    ]);
    expect(acknowledged(follow('u1', fence()))).toEqual([{ partition: 'u1', answer: 'in-doubt' }]);
    expect(member.inDoubt('u1', at(3))).toBe(1);
  });

  test('that was not sent leaves nothing behind', () => {
    member.end(admitted('u1', 'u2'), 'not-sent', at(2));
    expect(acknowledged(follow('u1', fence()))).toEqual([{ partition: 'u1', answer: 'drained' }]);
    expect(acknowledged(follow('u2', fence()))).toEqual([{ partition: 'u2', answer: 'drained' }]);
    expect(member.quiet(at(3))).toBe(true);
  });

  test('closes, where it is long-lived, with the fence of any of them', () => {
    admitted('u1', 'u2');
    expect(follow('u2', fence())).toContainEqual({ kind: 'end-long-lived', partition: 'u2' });
  });
});
