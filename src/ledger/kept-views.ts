/**
 * The ledger as this machine last knew it, on disk, so that a process that starts later can tell whether the
 * ledger has lost something since.
 *
 * Several processes may share the directory. A file is named by the ledger and by the confirmed version in it,
 * appears whole (written beside, synced, renamed), and only removes older ones: so the newest always wins, and
 * nobody needs a lock.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { inBatches } from '../batches.ts';
import type { Position } from '../core/view.ts';
import { sentenceOf } from '../log.ts';
import { documentLines, type LedgerDocument, parseDocument, partitionEntries } from './document.ts';
import type { Holding, PriorView } from './holding.ts';

export interface KeptView extends PriorView {
  readonly file: string;
  readonly document: LedgerDocument;
}

/** Lines written in one go; between two, requests are served. */
const linesAtOnce = 1_000;
const abandonedMs = 60_000;

export class KeptViews {
  readonly #directory: string;
  readonly #prefix: string;
  readonly #by: string;
  readonly #read: (file: string) => Promise<string>;

  /** `ledgerName`: where the ledger is, without a password; `by`: who writes; `read`: as text. */
  constructor(dataDir: string, ledgerName: string, by: string, read = readText) {
    this.#directory = resolve(dataDir, 'ledger-views');
    this.#prefix = createHash('sha256').update(ledgerName).digest('hex').slice(0, 16);
    this.#by = by;
    this.#read = read;
  }

  /** The view with the newest confirmed change. Throws a sentence where that file cannot be read. */
  async newest(): Promise<KeptView | undefined> {
    let gone: string | undefined;
    for (;;) {
      const name = (await this.#names()).at(-1);
      if (name === undefined) return undefined;
      const file = join(this.#directory, name);
      try {
        return parseView(file, await this.#read(file));
      } catch (error) {
        // Another process has kept a newer one and removed this; what is listed again cannot be read at all.
        if (isNotThere(error) && name !== gone) gone = name;
        else throw unusable(file, error);
      }
    }
  }

  /**
   * Was the file deleted from this very directory? A path says too little: another user, or a container with the
   * same host name, may look at the same path and find nothing.
   */
  async wasDeleted(witness: string): Promise<boolean> {
    const id = await this.#id(false);
    if (id === undefined || !witness.endsWith(`#${id}`)) return false;
    const file = witness.slice(0, -id.length - 1);
    return dirname(file) === this.#directory && stat(file).then(() => false, isNotThere);
  }

  /** What a mark in the ledger says of the file that it rests on. */
  async witnessOf({ file }: KeptView): Promise<string> {
    return `${file}#${await this.#id(true)}`;
  }

  /** Of the directory, random; undefined where it has none and none is to be made. */
  async #id(make: boolean): Promise<string | undefined> {
    const file = join(this.#directory, 'id');
    if (make) {
      await writeFile(file, randomUUID(), { flag: 'wx', mode: 0o600 }).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      });
    }
    return readFile(file, 'utf8').catch(() => undefined);
  }

  /** Does nothing for a holding that nothing was confirmed of. Throws where the file cannot be written. */
  async save({ confirmed, position, partitions, rules }: Holding): Promise<void> {
    if (confirmed === undefined) return;
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const name = this.#nameOf(confirmed);
    const names = await this.#names();
    const newest = names.at(-1);
    // Another process knows more already.
    if (newest !== undefined && versionOf(newest) > confirmed.version) return;
    const head = { kind: 'kept-view', by: this.#by, atMs: Date.now(), position, confirmed, rules } as const;
    const beside = join(this.#directory, `${name}.${randomUUID()}.part`);
    try {
      await writeLines(beside, documentLines(head, partitionEntries(partitions)));
      await rename(beside, join(this.#directory, name));
    } catch (error) {
      await rm(beside, { force: true });
      throw error;
    }
    for (const older of names) {
      if (versionOf(older) < confirmed.version) await rm(join(this.#directory, older), { force: true });
    }
  }

  /** Removes what a process that died in the middle of writing has left. */
  async clean(): Promise<void> {
    for (const name of await this.#listed('.part')) {
      const file = join(this.#directory, name);
      const written = await stat(file).catch(() => undefined);
      if (written !== undefined && Date.now() - written.mtimeMs > abandonedMs)
        await rm(file, { force: true });
    }
  }

  /** Of this ledger, oldest first. */
  #names(): Promise<string[]> {
    return this.#listed('.ndjson');
  }

  async #listed(ending: string): Promise<string[]> {
    try {
      const all = await readdir(this.#directory);
      return all.filter((name) => name.startsWith(`${this.#prefix}.`) && name.endsWith(ending)).toSorted();
    } catch (error) {
      if (isNotThere(error)) return [];
      throw error;
    }
  }

  #nameOf({ version, id }: Position): string {
    const digest = createHash('sha256').update(id).digest('hex').slice(0, 8);
    return `${this.#prefix}.${String(version).padStart(16, '0')}.${digest}.ndjson`;
  }
}

function readText(file: string): Promise<string> {
  return readFile(file, 'utf8');
}

function parseView(file: string, text: string): KeptView {
  const document = parseDocument(text.trimEnd().split('\n'));
  const { confirmed } = document.head;
  if (confirmed === undefined) throw new Error('it names no confirmed version');
  return { file, confirmed, document };
}

function isNotThere(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

function unusable(file: string, error: unknown): Error {
  const sentence =
    `${file}, which says what the ledger must not have lost, cannot be used (${sentenceOf(error)}). ` +
    'Nothing was changed. Make it readable, or delete it if the ledger is known to be whole.';
  return new Error(sentence, { cause: error });
}

function versionOf(name: string): number {
  return Number(name.split('.')[1]);
}

async function writeLines(file: string, lines: Iterable<string>): Promise<void> {
  const handle = await open(file, 'wx', 0o600);
  try {
    for (const batch of inBatches(lines, linesAtOnce)) await handle.write(`${batch.join('\n')}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
