/**
 * Lines on their way to files, beside the traffic: whoever writes one never waits and never learns of an error. A
 * disk that is slow, full or gone costs lines; how many is the first thing that is written once it takes some again.
 */
import { mkdir, open, readdir, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { type Log, sentenceOf } from '../../log.ts';

export interface LineFilesSettings {
  readonly directory: string;
  /** Of this process, unlike all others that write to the directory. */
  readonly run: string;
  /** Of one file; then the next begins. */
  readonly fileBytes: number;
  /** Of all files in the directory, also those of other processes; the oldest are removed. */
  readonly totalBytes: number;
  /** Of lines that wait for the disk. */
  readonly queueBytes: number;
  /** The line that opens each file. */
  readonly opening: () => object;
  readonly dropped: (count: number, because: string) => object;
  readonly log: Log;
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly path: string;
  bytes: number;
}

/** How long a line waits for company. */
const gatherMs = 100;
const tryAgainMs = 1_000;
const namePrefix = 'requests-';
const nameEnding = '.ndjson';

/** Paths of the files in a directory, in the order in which they were last written to. */
export async function lineFilesIn(directory: string): Promise<{ path: string; bytes: number }[]> {
  const names = await readdir(directory);
  const found: { path: string; bytes: number; writtenAtMs: number }[] = [];
  for (const name of names) {
    if (!name.startsWith(namePrefix) || !name.endsWith(nameEnding)) continue;
    const path = join(directory, name);
    // Another process may have removed it.
    const about = await stat(path).catch(() => undefined);
    if (about?.isFile() === true) found.push({ path, bytes: about.size, writtenAtMs: about.mtimeMs });
  }
  return found.toSorted((a, b) => a.writtenAtMs - b.writtenAtMs || (a.path < b.path ? -1 : 1));
}

export class LineFiles {
  readonly #settings: LineFilesSettings;
  #queue: string[] = [];
  #queuedBytes = 0;
  #file: OpenFile | undefined;
  #number = 1;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  /** Lines that were lost and not yet told of, by what they were lost to. */
  readonly #lost = new Map<string, number>();
  #failing = false;
  #closed = false;
  written = 0;
  dropped = 0;

  constructor(settings: LineFilesSettings) {
    this.#settings = settings;
  }

  write(line: object): void {
    const text = lineOf(line);
    const bytes = Buffer.byteLength(text);
    if (this.#closed || this.#queuedBytes + bytes > this.#settings.queueBytes) {
      this.#lose(1, 'queue-full');
      return;
    }
    this.#queue.push(text);
    this.#queuedBytes += bytes;
    this.#soon();
  }

  /** Writes what it can in time; a disk that hangs is left alone. */
  async close(withinMs: number): Promise<void> {
    let late: NodeJS.Timeout | undefined;
    const timeIsUp = new Promise<void>((resolve) => {
      late = setTimeout(resolve, withinMs);
    });
    await Promise.race([this.#finish(), timeIsUp]);
    clearTimeout(late);
  }

  async #finish(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#writing;
    this.#closed = true;
    await this.#writeBatch();
    await this.#leaveFile();
  }

  #soon(): void {
    if (this.#timer !== undefined || this.#writing !== undefined || this.#closed) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#writing = this.#writeBatch().finally(() => {
          this.#writing = undefined;
          if (this.#queue.length > 0 || this.#lost.size > 0) this.#soon();
        });
      },
      this.#failing ? tryAgainMs : gatherMs,
    );
    // Whoever ends closes, and that writes the rest.
    this.#timer.unref();
  }

  async #writeBatch(): Promise<void> {
    if (this.#queue.length === 0 && this.#lost.size === 0) return;
    const batch = this.#queue;
    this.#queue = [];
    try {
      await this.#append(batch);
      this.written += batch.length;
      if (this.#failing) this.#settings.log('info', 'observe.written-again', {});
      this.#failing = false;
    } catch (error) {
      await this.#cope(batch, error);
    } finally {
      // Only now: what is being written takes up memory, too.
      this.#queuedBytes = this.#queue.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    }
  }

  async #cope(batch: readonly string[], error: unknown): Promise<void> {
    const cause = error instanceof CutShort ? error.cause : error;
    const because = (cause as NodeJS.ErrnoException).code ?? 'failed';
    const written = error instanceof CutShort ? error.lines : 0;
    this.written += written;
    this.#lose(batch.length - written, because);
    await this.#leaveFile();
    // A limit on the size of files: the next one begins at nothing.
    if (because === 'EFBIG') this.#number += 1;
    if (this.#failing) return;
    this.#failing = true;
    this.#settings.log('warn', 'observe.not-written', {
      detail: `${sentenceOf(cause)}. Traffic is not touched by it; lines are dropped and counted until it is mended.`,
    });
  }

  async #append(batch: readonly string[]): Promise<void> {
    const file = await this.#fileNow();
    for (const [because, count] of this.#lost) {
      await put(file, [lineOf(this.#settings.dropped(count, because))]);
      const since = (this.#lost.get(because) ?? 0) - count;
      if (since === 0) this.#lost.delete(because);
      else this.#lost.set(because, since);
    }
    await put(file, batch);
    if (file.bytes < this.#settings.fileBytes) return;
    await this.#leaveFile();
    this.#number += 1;
  }

  /** A file that somebody has removed or replaced is not written to any more. */
  async #fileNow(): Promise<OpenFile> {
    if (this.#file !== undefined) {
      const { handle, path } = this.#file;
      const [ours, there] = await Promise.all([handle.stat(), stat(path).catch(() => undefined)]);
      if (there?.ino === ours.ino && there.dev === ours.dev) return this.#file;
      await this.#leaveFile();
      if (there !== undefined) this.#number += 1;
    }
    const { directory, run, opening } = this.#settings;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, `${namePrefix}${run}-${this.#number}${nameEnding}`);
    const handle = await open(path, 'a', 0o600);
    this.#file = { handle, path, bytes: (await handle.stat()).size };
    await this.#makeRoom(path);
    // What an error has cut short must not run into what follows.
    await put(this.#file, [this.#file.bytes === 0 ? lineOf(opening()) : '\n']);
    return this.#file;
  }

  async #makeRoom(current: string): Promise<void> {
    const { directory, totalBytes, fileBytes } = this.#settings;
    const files = await lineFilesIn(directory);
    let bytes = files.reduce((sum, file) => sum + file.bytes, fileBytes);
    for (const file of files) {
      if (bytes <= totalBytes) return;
      if (file.path === current) continue;
      await rm(file.path, { force: true });
      bytes -= file.bytes;
    }
  }

  async #leaveFile(): Promise<void> {
    const handle = this.#file?.handle;
    this.#file = undefined;
    await handle?.close().catch(() => undefined);
  }

  #lose(count: number, because: string): void {
    this.dropped += count;
    this.#lost.set(because, (this.#lost.get(because) ?? 0) + count);
    this.#soon();
  }
}

function lineOf(line: object): string {
  return `${JSON.stringify(line)}\n`;
}

/** Some lines are in the file, the next one perhaps in part. */
class CutShort extends Error {
  readonly lines: number;

  constructor(lines: number, cause: unknown) {
    super('a write was cut short', { cause });
    this.lines = lines;
  }
}

async function put(file: OpenFile, lines: readonly string[]): Promise<void> {
  const bytes = Buffer.from(lines.join(''));
  let at = 0;
  try {
    while (at < bytes.byteLength) {
      const { bytesWritten } = await file.handle.write(bytes, at);
      at += bytesWritten;
      file.bytes += bytesWritten;
    }
  } catch (error) {
    throw new CutShort(bytes.subarray(0, at).filter((byte) => byte === 0x0a).length, error);
  }
}
