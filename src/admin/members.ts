/** Calls about the proxy processes that the ledger lists: who they are, and taking a dead one off the list. */
import { z } from 'zod';
import type { MemberRecord } from '../core/ports.ts';
import { memberRemoveAnswer, membersAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

export function memberOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/members',
      role: 'viewer',
      summary: 'The proxy processes listed in the ledger.',
      answer: membersAnswer,
      run: async () => {
        const members = await parts.ledger.members();
        return { answer: { members: members.map((member) => ({ ...member, ...silenceOf(parts, member) })) } };
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
  if (member === undefined) {
    return {
      problem: { code: 'no-such-member', detail: `No member ${id} is listed; GET /v1/members lists them.` },
    };
  }
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
