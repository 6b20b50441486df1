/** `strays list`, `show`, `resolve` and `export`: changes that somebody made in the store that is not the owner. */
import { type StrayAnswer, strayAnswer, straysAnswer } from '../../admin/findings.ts';
import { type StrayResolution, strayResolutions } from '../../core/stray.ts';
import type { Command } from '../command.ts';
import { exitCodes, refusal } from '../exit.ts';
import { writeWhole } from '../files.ts';
import { plain } from '../output.ts';
import { confirm, mayAsk } from './confirm.ts';

const atOnce = 500;
const exportWithinMs = 60_000;
const state = { type: 'string', value: 'open|resolved', summary: 'Only such.' } as const;

const list: Command = {
  name: 'strays list',
  summary: 'List changes made in the store that does not own the partition',
  positionals: [],
  options: { state },
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const { output } = context;
    const wanted = given.text('state');
    for (let cursor = ''; ;) {
      const query = new URLSearchParams({
        limit: String(atOnce),
        ...(wanted === undefined ? {} : { state: wanted }),
        ...(cursor === '' ? {} : { cursor }),
      });
      const page = await admin.value.get(`/strays?${query.toString()}`, straysAnswer);
      if (!page.ok) return page.refusal;
      const { strays, next } = page.value;
      for (const stray of strays) output.event('stray', stray);
      output.table(
        strays.map(({ id, state: now, store, partition, kind, record, change, lateWrite, resolved }) => [
          ...[id, resolved?.how ?? now, `${change} in ${store}`, plain(partition)],
          plain(`${kind} ${record}`),
          lateWrite === undefined ? '' : plain(`late: ${lateWrite.method} ${lateWrite.path}`),
        ]),
        '',
      );
      if (next === undefined) {
        if (strays.length === 0 && cursor === '') output.line('There are no strays.');
        return exitCodes.done;
      }
      cursor = next;
    }
  },
};

const show: Command = {
  name: 'strays show',
  summary: 'Show one stray, with what both stores held when it was found',
  positionals: ['<STRAY>'],
  options: {},
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const { output } = context;
    const [id = ''] = given.positionals;
    const found = await admin.value.get(`/strays/${encodeURIComponent(id)}`, strayAnswer);
    if (!found.ok) return found.refusal;
    const stray = found.value;
    output.event('stray', stray);
    const { store, owner, lateWrite, resolved } = stray;
    output.table([
      ['stray', stray.id],
      [
        'state',
        resolved === undefined
          ? stray.state
          : `${resolved.how} by ${plain(resolved.by)}: ${plain(resolved.reason)}`,
      ],
      ['change', `${stray.change} in ${store}, while ${owner} owned the partition (epoch ${stray.epoch})`],
      ['partition', plain(stray.partition)],
      ['record', plain(`${stray.kind} ${stray.record}`)],
      ['found', new Date(stray.foundAtMs).toISOString()],
      ...(lateWrite === undefined
        ? []
        : [['late write', plain(`${lateWrite.method} ${lateWrite.path}`)] as const]),
      [`${store} held`, plain(stray.holds ?? 'nothing')],
      [`${owner} held`, plain(stray.ownerHolds ?? 'nothing')],
    ]);
    if (stray.state === 'open' && stray.writtenOver === true) output.line(windowSentence(stray));
    return exitCodes.done;
  },
};

/** What becomes of the change once nobody holds it to be a stray any more. */
function windowSentence(stray: StrayAnswer): string {
  const { store, owner, kind, record, partition, change, ownerHolds } = stray;
  const becomes =
    ownerHolds === undefined
      ? `is deleted, because ${owner} did not hold it when this was found`
      : change === 'deleted'
        ? `is made again as ${owner} holds it`
        : `is written over with what ${owner} holds`;
  return plain(
    `The rollback window of ${partition} is open, so once this is resolved ${kind} ${record} in ${store} ${becomes}. ` +
      `To keep what was done in ${store}, bring it into ${owner} first, then: onewriter strays resolve ${stray.id} --how moved --reason TEXT`,
  );
}

/** Told where a record of the owner is copied over the change. */
function afterwards({ writtenOver, store, owner, kind, record }: StrayAnswer): string {
  if (writtenOver !== true) return '';
  return plain(
    ` The rollback window is open, so ${kind} ${record} in ${store} now becomes what ${owner} holds; "strays show" has what ${store} held.`,
  );
}

const resolve: Command = {
  name: 'strays resolve',
  summary: 'Say what became of a stray, so that it stops no flip any more',
  positionals: ['<STRAY>'],
  options: {
    how: {
      type: 'string',
      value: strayResolutions.join('|'),
      summary:
        "Nobody needs the change (ignored), it was undone in that store (repaired), or brought to the owner by hand (moved). While the rollback window is open, the owner's record is then written over it.",
    },
  },
  changes: true,
  async run(context, given) {
    const how = given.text('how');
    if (!strayResolutions.includes(how as StrayResolution)) {
      return refusal(
        'usage',
        `Say what became of it: --how ${strayResolutions.join('|')}. Nothing was done.`,
      );
    }
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const path = `/strays/${encodeURIComponent(given.positionals[0] ?? '')}`;
    const found = await admin.value.get(path, strayAnswer);
    if (!found.ok) return found.refusal;
    const { id, state: now, writtenOver } = found.value;
    // Only here is something lost that stands nowhere else.
    if (how === 'ignored' && writtenOver === true && now === 'open') {
      const sentence = windowSentence(found.value);
      const unasked = mayAsk(context);
      if (unasked !== undefined) return { ...unasked, detail: `${sentence} ${unasked.detail}` };
      const unsure = await confirm(context, sentence, id);
      if (unsure !== undefined) return unsure;
    }
    const order = { how, reason: context.reason };
    const done = await admin.value.post(`${path}/resolve`, order, strayAnswer);
    if (!done.ok) return done.refusal;
    context.output.event('stray', done.value);
    context.output.line(
      `${done.value.id} is resolved: ${done.value.resolved?.how ?? ''}.${afterwards(done.value)}`,
    );
    return exitCodes.done;
  },
};

const exported: Command = {
  name: 'strays export',
  summary: 'All strays with what the stores held, as NDJSON',
  positionals: [],
  options: {
    state,
    out: { type: 'string', value: 'FILE', summary: 'Into this file; else to standard output.' },
  },
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const wanted = given.text('state');
    const query = wanted === undefined ? '' : `?state=${encodeURIComponent(wanted)}`;
    const got = await admin.value.getText(`/strays/export${query}`, exportWithinMs);
    if (!got.ok) return got.refusal;
    const file = given.text('out');
    const lines = got.value.split('\n').filter((line) => line !== '');
    if (file === undefined) for (const line of lines) context.output.line(line);
    else {
      const failed = await writeWhole(file, lines.map((line) => `${line}\n`).join(''));
      if (failed !== undefined) return failed;
    }
    context.output.event('exported', { strays: lines.length });
    return exitCodes.done;
  },
};

export const strayCommands: readonly Command[] = [list, show, resolve, exported];
