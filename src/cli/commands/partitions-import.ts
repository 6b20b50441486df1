/** `partitions import FILE`: partitions and their attributes for the registry, from JSON or NDJSON. */
import { readFile } from 'node:fs/promises';
import { text as readText } from 'node:stream/consumers';
import { z } from 'zod';
import { importAnswer } from '../../admin/answers.ts';
import { attributesSchema } from '../../ledger/records.ts';
import type { Command, Context } from '../command.ts';
import { type Attempt, exitCodes, failedAttempt, refusal } from '../exit.ts';
import { plain } from '../output.ts';

const entry = z.strictObject({
  partition: z.string().min(1),
  attributes: attributesSchema.optional(),
  users: z.array(z.string().min(1)).optional(),
});
type Entry = z.output<typeof entry>;

/** One call takes at most 1 MiB; this leaves room for its frame. */
const callBytes = 512 * 1024;
const problemsShown = 20;

export const partitionsImport: Command = {
  name: 'partitions import',
  summary: 'Add partitions with attributes to the registry',
  positionals: ['<FILE>'],
  options: {
    complete: {
      type: 'boolean',
      summary: 'Also say that the registry now names everybody who lives in legacy: others are new.',
    },
  },
  changes: true,
  async run(context, given) {
    const read = await readSource(context, given.positionals[0] ?? '-');
    if (!read.ok) return read.refusal;
    const entries = entriesOf(read.value);
    if (!entries.ok) return entries.refusal;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    let imported = 0;
    let known = 0;
    let complete = false;
    const users = { added: 0, unchanged: 0, others: [] as string[] };
    const all = [...portions(entries.value)];
    // With nobody to name, there is still something to say.
    if (all.length === 0) all.push([]);
    for (const [at, partitions] of all.entries()) {
      const last = given.flag('complete') && at === all.length - 1;
      const order = { reason: context.reason, partitions, ...(last ? { complete: true } : {}) };
      const done = await admin.value.post('/partitions/import', order, importAnswer);
      if (!done.ok) {
        const detail = `${done.refusal.detail} ${imported} of ${entries.value.length} were imported before; importing them again does no harm.`;
        return { ...done.refusal, detail };
      }
      imported += done.value.imported;
      ({ known, complete } = done.value);
      users.added += done.value.users?.added ?? 0;
      users.unchanged += done.value.users?.unchanged ?? 0;
      users.others.push(...(done.value.users?.others ?? []));
    }
    context.output.event('import', { imported, known, complete, users });
    context.output.line(`Imported ${imported} partitions; the registry knows ${known}.`);
    for (const line of linesOf(users)) context.output.line(line);
    if (given.flag('complete')) context.output.line('Whom it does not name counts as new from now on.');
    return exitCodes.done;
  },
};

function linesOf({
  added,
  unchanged,
  others,
}: NonNullable<z.output<typeof importAnswer>['users']>): string[] {
  if (added + unchanged + others.length === 0) return [];
  const lines = [`The directory has ${added} new users; ${unchanged} were there already.`];
  if (others.length === 0) return lines;
  const named = others.slice(0, problemsShown).map(plain).join(', ');
  const more = others.length > problemsShown ? ` and ${others.length - problemsShown} more` : '';
  return [...lines, `Left where they belong already: ${named}${more}. Change one with "directory set".`];
}

async function readSource(context: Context, file: string): Promise<Attempt<string>> {
  try {
    return { ok: true, value: file === '-' ? await readText(context.stdin) : await readFile(file, 'utf8') };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    return failedAttempt(refusal('cannot-read', `${file} cannot be read (${code}); nothing was imported.`));
  }
}

/** Everything that is wrong, with its place, before anything is sent. */
export function entriesOf(source: string): Attempt<Entry[]> {
  const isArray = source.trimStart().startsWith('[');
  const entries: Entry[] = [];
  const wrong: string[] = [];
  const take = (place: string, value: unknown): void => {
    const parsed = entry.safeParse(value);
    if (parsed.success) entries.push(parsed.data);
    else
      wrong.push(...parsed.error.issues.map(({ path, message }) => `${place}: ${path.join('.')} ${message}`));
  };
  if (isArray) {
    const array = parsedJson(source);
    if (!Array.isArray(array)) wrong.push('the file is not JSON');
    else for (const [at, value] of array.entries()) take(`entry ${at + 1}`, value);
  } else {
    for (const [at, line] of source.split('\n').entries()) {
      if (line.trim() === '') continue;
      const value = parsedJson(line);
      if (value === undefined) wrong.push(`line ${at + 1}: is not JSON`);
      else take(`line ${at + 1}`, value);
    }
  }
  if (wrong.length === 0) return { ok: true, value: entries };
  const lines = wrong.slice(0, problemsShown);
  if (wrong.length > problemsShown) lines.push(`and ${wrong.length - problemsShown} more`);
  return failedAttempt({ ...refusal('bad-file', 'Nothing was imported; the file has problems.'), lines });
}

function* portions(entries: readonly Entry[]): Generator<Entry[]> {
  let portion: Entry[] = [];
  let bytes = 0;
  for (const next of entries) {
    const size = Buffer.byteLength(JSON.stringify(next)) + 1;
    if (bytes + size > callBytes && portion.length > 0) {
      yield portion;
      portion = [];
      bytes = 0;
    }
    portion.push(next);
    bytes += size;
  }
  if (portion.length > 0) yield portion;
}

function parsedJson(source: string): unknown {
  try {
    return JSON.parse(source);
  } catch {
    return undefined;
  }
}
