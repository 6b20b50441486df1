/** `sync brakes` and `sync release`: deletes of many copies at once, which wait until an operator agrees. */
import { brakeAnswer, brakeOnAllAnswer, brakesAnswer } from '../../admin/brake-answers.ts';
import type { AdminClient } from '../client.ts';
import type { Command, Context } from '../command.ts';
import { type CliRefusal, type ExitCode, exitCodes, refusal } from '../exit.ts';
import { otherStore, type StoreName } from '../../core/ownership.ts';
import { lookAtOwner } from '../../sync/brake-on-all.ts';
import { plain } from '../output.ts';

const brakes: Command = {
  name: 'sync brakes',
  summary: 'Partitions of which many copies would be deleted at once, and are not',
  positionals: [],
  options: {},
  changes: false,
  async run(context) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const listed = await admin.value.get('/sync/brakes', brakesAnswer);
    if (!listed.ok) return listed.refusal;
    const { output } = context;
    const { onAll } = listed.value;
    for (const brake of listed.value.brakes) output.event('brake', brake);
    if (onAll !== null) {
      output.event('brake-on-all', onAll);
      output.line(
        plain(
          `NO COPY IS DELETED since ${new Date(onAll.atMs).toISOString()}: ${onAll.lately} of about ${onAll.copies} copies were ` +
            `within an hour, and ${onAll.deletes} more${inStores(...onAll.stores)} are to be (first: ${onAll.first.join(', ')}); the limit is ${onAll.limit}. ` +
            `${lookAtOwner(onAll.stores)}, then: onewriter sync release --all --reason TEXT`,
        ),
      );
    }
    output.table(
      listed.value.brakes.map(({ partition, deletes, records, store, first, atMs }) => [
        plain(partition),
        `${deletes} of ${records} copies${store === undefined ? '' : ` in ${store}`}`,
        store === undefined ? '' : `owner: ${otherStore(store)}`,
        `since ${new Date(atMs).toISOString()}`,
        plain(`first: ${first.join(', ')}`),
      ]),
    );
    if (listed.value.brakes.length > 0) {
      output.line(
        `${lookAtOwner(listed.value.brakes.flatMap(({ store }) => store ?? []))}, then: onewriter sync release PARTITION --reason TEXT`,
      );
    } else if (onAll === null) output.line('No deletes are held back.');
    return exitCodes.done;
  },
};

const release: Command = {
  name: 'sync release',
  summary: 'Agree to deletes that are held back: of a partition, or with --all what is held over all of them',
  positionals: ['[PARTITION]'],
  options: {
    all: { type: 'boolean', summary: 'The brake on all partitions together; those of single ones stay.' },
  },
  changes: true,
  async run(context, given) {
    const [partition] = given.positionals;
    if ((partition !== undefined) === given.flag('all')) {
      return refusal('usage', 'Name one partition (onewriter sync brakes lists them), or --all.');
    }
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    if (partition === undefined) return releaseAll(context, admin.value);
    const path = `/sync/brakes/${encodeURIComponent(partition)}/release`;
    const done = await admin.value.post(path, { reason: context.reason }, brakeAnswer);
    if (!done.ok) return done.refusal;
    context.output.event('released', done.value);
    context.output.line(
      `Up to ${done.value.deletes} copies of ${plain(partition)}${inStores(done.value.store)} are deleted now; each only after the owner has said that the record is gone.`,
    );
    return exitCodes.done;
  },
};

async function releaseAll(context: Context, admin: AdminClient): Promise<ExitCode | CliRefusal> {
  const done = await admin.post('/sync/brakes/release', { reason: context.reason }, brakeOnAllAnswer);
  if (!done.ok) return done.refusal;
  context.output.event('released', done.value);
  context.output.line(
    `For an hour up to ${done.value.deletes + done.value.limit} copies${inStores(...done.value.stores)} are deleted, as full passes find them; each only after the owner has said that the record is gone. Brakes on single partitions stay.`,
  );
  return exitCodes.done;
}

function inStores(...stores: readonly (StoreName | undefined)[]): string {
  const known = stores.filter((store) => store !== undefined);
  return known.length === 0 ? '' : ` in ${known.join(' and ')}`;
}

export const brakeCommands: readonly Command[] = [brakes, release];
