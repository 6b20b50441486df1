/** Calls about the proxy processes that the ledger lists: who they are, and taking a dead one off the list. */
import { z } from 'zod';
import type { MemberRecord } from '../core/ports.ts';
import { memberRemoveAnswer, membersAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

/** Many times as long as an observer takes to be seen again. */
const observerSilentMs = 10_000;

export function memberOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/members',
      role: 'viewer',
      summary: 'The proxy processes listed in the ledger: members, and those that only observe.',
      answer: membersAnswer,
      run: async () => {
        const [members, observers, nowMs] = await Promise.all([
          parts.ledger.members(),
          parts.ledger.observers.list(),
          parts.ledger.nowMs(),
        ]);
        return {
          answer: {
            members: members.map((member) => ({ ...member, ...silenceOf(parts, member) })),
            observers: observers.map((observer) => ({ ...observer, silentMs: nowMs - observer.seenAtMs })),
          },
        };
      },
    }),
    operation({
      method: 'post',
      path: '/members/:id/remove',
      role: 'admin',
      summary: 'Takes a member off the list that is proven to be dead, so that handoffs wait for it no more.',
      changes: true,
      body: z.strictObject({ reason }),
      answer: memberRemoveAnswer,
      run: ({ parameters, body }) => remove(parts, parameters['id'] ?? '', body.reason),
    }),
  ];
}

function silenceOf(parts: AdminParts, { id }: MemberRecord) {
  const silentMs = parts.watch?.silentMs(id);
  return silentMs === undefined ? {} : { silentMs: Math.round(silentMs) };
}

/**
 * Only one that has been silent for as long as its last write could run and then take effect: whoever is alive
 * goes on writing, and nothing would wait for it any more.
 */
async function remove(parts: AdminParts, id: string, why: string): Promise<Reply> {
  const lost = await parts.ledger.regression();
  if (lost !== undefined) {
    const detail = `Nothing was done: the ledger lost data (${lost.detail}), and takes no heartbeat, so nobody can be told from the dead. Restore it first.`;
    return { problem: { code: 'ledger-regressed', detail } };
  }
  await parts.watch?.look();
  const member = (await parts.ledger.members()).find((listed) => listed.id === id);
  if (member === undefined) return removeObserver(parts, id, why);
  const silentMs = parts.watch?.silentMs(id) ?? 0;
  const needMs = member.leaseMs + member.writeTimeoutMs + member.settleMs;
  const who = `${id} (pid ${member.pid} on ${member.host})`;
  if (silentMs <= needMs) {
    const seen = `its last heartbeat was seen at most ${Math.round(silentMs)} ms ago, and it counts as silent after ${needMs} ms`;
    const detail = `Nothing was done: ${who} may be alive: ${seen}. Stop that process, or wait, and repeat.`;
    return { problem: { code: 'member-alive', detail, members: { silentMs: Math.round(silentMs), needMs } } };
  }
  if (!(await parts.ledger.removeMember(id, member.sequence))) {
    const detail = `Nothing was done: ${who} has just sent a heartbeat, so it is alive.`;
    return { problem: { code: 'member-alive', detail } };
  }
  const change = { action: 'member.remove', target: id, reason: why, before: member, after: null };
  return { answer: { id, host: member.host, pid: member.pid, silentMs: Math.round(silentMs) }, change };
}

/** An observer goes on without the ledger, so its silence is only a hint: the operator vouches for its death. */
async function removeObserver({ ledger }: AdminParts, id: string, why: string): Promise<Reply> {
  const observer = (await ledger.observers.list()).find((listed) => listed.id === id);
  if (observer === undefined) {
    const detail = `No member ${id} is listed; "onewriter members list" (GET /v1/members) lists them.`;
    return { problem: { code: 'no-such-member', detail } };
  }
  const { host, pid, settleMs, seenAtMs } = observer;
  const silentMs = (await ledger.nowMs()) - seenAtMs;
  const needMs = observerSilentMs + settleMs;
  const who = `${id} (pid ${pid} on ${host})`;
  if (silentMs <= needMs || !(await ledger.observers.end(id, seenAtMs))) {
    const detail = `Nothing was done: ${who}, which observes, was seen ${silentMs} ms ago, and counts as silent after ${needMs} ms. Stop that process, or wait, and repeat.`;
    return { problem: { code: 'member-alive', detail, members: { silentMs, needMs } } };
  }
  const change = { action: 'member.remove', target: id, reason: why, before: observer, after: null };
  return { answer: { id, host, pid, silentMs }, change };
}
