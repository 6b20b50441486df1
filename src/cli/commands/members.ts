/** `members list` and `members remove`: the proxy processes that the ledger knows of. */
import { memberRemoveAnswer, membersAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes } from '../exit.ts';
import { plain } from '../output.ts';

const list: Command = {
  name: 'members list',
  summary: 'List the proxies, and how long each has been silent',
  positionals: [],
  options: {},
  changes: false,
  async run(context) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const listed = await admin.value.get('/members', membersAnswer);
    if (!listed.ok) return listed.refusal;
    const { members, observers } = listed.value;
    for (const member of members) context.output.event('member', member);
    for (const observer of observers) context.output.event('observer', observer);
    context.output.table([
      ...members.map(({ id, host, pid, silentMs, inFlight, inDoubt, unexpirable }) => [
        id,
        plain(`pid ${pid} on ${host}`),
        silentMs === undefined ? 'not watched' : `silent ${silentMs} ms`,
        `${inFlight} in flight, ${inDoubt} in doubt`,
        unexpirable === true ? 'goes on without the ledger' : '',
      ]),
      ...observers.map(({ id, host, pid, silentMs }) => [
        id,
        plain(`pid ${pid} on ${host}`),
        `silent ${silentMs} ms`,
        'only observes: nothing moves',
        'goes on without the ledger',
      ]),
    ]);
    return exitCodes.done;
  },
};

const remove: Command = {
  name: 'members remove',
  summary: 'Take a proxy off the list that is proven to be dead',
  positionals: ['<ID>'],
  options: {},
  changes: true,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const path = `/members/${encodeURIComponent(given.positionals[0] ?? '')}/remove`;
    const removed = await admin.value.post(path, { reason: context.reason }, memberRemoveAnswer);
    if (!removed.ok) return removed.refusal;
    const { id, host, pid, silentMs } = removed.value;
    context.output.event('member', removed.value);
    context.output.line(plain(`Removed ${id} (pid ${pid} on ${host}), silent for ${silentMs} ms.`));
    return exitCodes.done;
  },
};

export const memberCommands: readonly Command[] = [list, remove];
