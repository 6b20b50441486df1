/** `partitions import FILE`: partitions and their attributes for the registry, from JSON or NDJSON. */
import { readFile } from 'node:fs/promises';
import { text as readText } from 'node:stream/consumers';
import { z } from 'zod';
import { importAnswer } from '../../admin/answers.ts';
import type { Command, Context } from '../command.ts';
import { type Attempt, exitCodes, failedAttempt, refusal } from '../exit.ts';

const entry = z.strictObject({
  partition: z.string().min(1),
  attributes: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])).optional(),
});
type Entry = z.output<typeof entry>;

/** One call takes at most 1 MiB; this leaves room for its frame. */
const callBytes = 512 * 1024;
const problemsShown = 20;

export const partitionsImport: Command = {
  name: 'partitions import',
  summary: 'Add partitions with attributes to the registry',
  positionals: ['<FILE>'],
  options: {},
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
    for (const partitions of portions(entries.value)) {
      const done = await admin.value.post(
        '/partitions/import',
        { reason: context.reason, partitions },
        importAnswer,
      );
      if (!done.ok) {
        const detail = `${done.refusal.detail} ${imported} of ${entries.value.length} were imported before; importing them again does no harm.`;
        return { ...done.refusal, detail };
      }
      imported += done.value.imported;
      known = done.value.known;
    }
    context.output.event('import', { imported, known });
    context.output.line(`Imported ${imported} partitions; the registry knows ${known}.`);
    return exitCodes.done;
  },
};

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
