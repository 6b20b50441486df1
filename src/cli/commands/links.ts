/** `links list` and `links forget`: partitions that are written together, which no handoff may part. */
import { forgetLinkAnswer, linksAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes } from '../exit.ts';
import { plain } from '../output.ts';

const atOnce = 500;

const list: Command = {
  name: 'links list',
  summary: 'List partitions that are written together',
  positionals: ['[PARTITION]'],
  options: {},
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const { output } = context;
    const [partition] = given.positionals;
    for (let cursor = ''; ;) {
      const query = new URLSearchParams({
        limit: String(atOnce),
        ...(partition === undefined ? {} : { partition }),
        ...(cursor === '' ? {} : { cursor }),
      });
      const page = await admin.value.get(`/links?${query.toString()}`, linksAnswer);
      if (!page.ok) return page.refusal;
      const { links, next } = page.value;
      for (const link of links) output.event('link', link);
      output.table(
        links.map(({ partitions: [one, other], route, atMs }) => [
          ...[plain(one), plain(other), `since ${new Date(atMs).toISOString()}`],
          route === '' ? 'no route' : plain(route),
        ]),
        '',
      );
      if (next === undefined) {
        if (links.length === 0 && cursor === '') output.line('No partitions are noted as written together.');
        return exitCodes.done;
      }
      cursor = next;
    }
  },
};

const forget: Command = {
  name: 'links forget',
  summary: 'Say that two partitions are not written together any more',
  positionals: ['<PARTITION>', '<PARTITION>'],
  options: {},
  changes: true,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const [one = '', other = ''] = given.positionals;
    const order = { partitions: [one, other], reason: context.reason };
    const done = await admin.value.post('/links/forget', order, forgetLinkAnswer);
    if (!done.ok) return done.refusal;
    context.output.event('link', done.value.forgotten);
    context.output.line(
      `${plain(one)} and ${plain(other)} may be on different stores. The next write that joins them notes it again.`,
    );
    return exitCodes.done;
  },
};

export const linkCommands: readonly Command[] = [list, forget];
