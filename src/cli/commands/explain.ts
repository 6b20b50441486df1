/** `explain USER`: which store takes the user's writes, and why. */
import { explainAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes, refusal } from '../exit.ts';
import { plain } from '../output.ts';
import { strayRows } from './troubles.ts';

export const explain: Command = {
  name: 'explain',
  summary: 'Say which store takes the writes of a user, and why',
  positionals: ['[USER]'],
  options: {
    partition: { type: 'string', value: 'NAME', summary: 'Ask for a partition instead of a user.' },
  },
  changes: false,
  async run(context, given) {
    const [user] = given.positionals;
    const partition = given.text('partition');
    if ((user === undefined) === (partition === undefined)) {
      return refusal('usage', 'Name a user, or a partition with --partition NAME; one of the two.');
    }
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const query = new URLSearchParams(user === undefined ? { partition: partition ?? '' } : { user });
    const asked = await admin.value.get(`/explain?${query.toString()}`, explainAnswer);
    if (!asked.ok) return asked.refusal;
    const { value } = asked;
    const { output } = context;
    const { linkedWith } = value;
    output.event('explain', value);
    const takes = value.phase === 'fenced' ? `nowhere while it moves away from ${value.owner}` : value.owner;
    output.line(`${plain(user ?? value.partition)}: writes go to ${output.paint('bold', takes)}`);
    output.table(
      [
        ['partition', `${plain(value.partition)}${value.known ? '' : ' (not known; check the spelling)'}`],
        ['phase', `${value.phase}, epoch ${value.epoch}`],
        ['cohorts', value.cohorts.map(plain).join(', ') || 'none'],
        ['why', plain(value.why.sentence)],
        ...(linkedWith.length === 0 ? [] : [['written with', linkedWith.map(plain).join(', ')]]),
        ['in doubt', value.inDoubt.length === 0 ? 'nothing' : `${value.inDoubt.length} writes`],
        ...strayRows(value.openStrays),
      ],
      '  ',
    );
    for (const { method, path, store, atMs, settlesAtMs, why } of value.inDoubt) {
      const [at, until] = [atMs, settlesAtMs].map((ms) => new Date(ms).toISOString());
      output.line(`    ${method} ${plain(path)} to ${store} at ${at}, settles at ${until}: ${plain(why)}`);
    }
    return exitCodes.done;
  },
};
