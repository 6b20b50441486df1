import { spawnSync } from 'node:child_process';
import {
  createReadStream,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { lineFilesIn, LineFiles, type LineFilesSettings } from '../../src/proxy/observe/files.ts';
import { until } from '../support/until.ts';

let base: string;
let directory: string;
let files: LineFiles;
let logged: string[];

function open(changes: Partial<LineFilesSettings> = {}): LineFiles {
  logged = [];
  files = new LineFiles({
    ...{ directory, run: 'r', fileBytes: 1_000_000, totalBytes: 10_000_000, queueBytes: 1_000_000 },
    opening: () => ({ type: 'start' }),
    dropped: (count, because) => ({ type: 'dropped', count, because }),
    log: (_level, event) => logged.push(event),
    ...changes,
  });
  return files;
}

function linesOf(name: string): unknown[] {
  const text = readFileSync(join(directory, name), 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}

const line = (n: number): object => ({ n });
const numbered = (from: number, to: number): object[] =>
  Array.from({ length: to - from }, (_, at) => line(from + at));

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'onewriter-files-'));
  directory = join(base, 'data', 'observe');
});

afterEach(async () => {
  await files.close(1_000);
  rmSync(base, { recursive: true, force: true });
});

describe('lines', () => {
  test('are appended in order behind an opening line, for this user only', async () => {
    open();
    for (const one of numbered(0, 500)) files.write(one);
    await files.close(10_000);
    expect(linesOf('requests-r-1.ndjson')).toEqual([{ type: 'start' }, ...numbered(0, 500)]);
    expect(statSync(join(directory, 'requests-r-1.ndjson')).mode & 0o777).toBe(0o600);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(files).toMatchObject({ written: 500, dropped: 0 });
  });

  test('go on in the next file where one is full, and the oldest files make room, other processes’ too', async () => {
    open({ run: 'before', fileBytes: 1_000_000 });
    for (const one of numbered(0, 200)) files.write(one);
    await files.close(10_000);
    open({ fileBytes: 1_000, totalBytes: 4_000 });
    for (let batch = 0; batch < 12; batch += 1) {
      for (const one of numbered(0, 100)) files.write(one);
      await until('the batch is written', () => files.written === (batch + 1) * 100);
    }
    const left = await lineFilesIn(directory);
    const bytes = left.reduce((sum, file) => sum + file.bytes, 0);
    expect(bytes).toBeGreaterThan(1_000);
    expect(bytes).toBeLessThan(5_000);
    expect(left.map(({ path }) => path).join()).not.toContain('before');
    expect(left.at(-1)?.path).toBe(join(directory, 'requests-r-6.ndjson'));
  });
});

describe('whatever happens to the files, writing goes on', () => {
  test('the directory is removed: it is made again', async () => {
    open();
    files.write(line(1));
    await until('it is written', () => files.written === 1);
    rmSync(directory, { recursive: true });
    files.write(line(2));
    await until('it is written', () => files.written === 2);
    expect(linesOf('requests-r-1.ndjson')).toEqual([{ type: 'start' }, line(2)]);
  });

  test('the file is moved and another one is put in its place: that one is left alone', async () => {
    open();
    files.write(line(1));
    await until('it is written', () => files.written === 1);
    renameSync(join(directory, 'requests-r-1.ndjson'), join(directory, 'mine'));
    writeFileSync(join(directory, 'requests-r-1.ndjson'), 'theirs');
    files.write(line(2));
    await until('it is written', () => files.written === 2);
    expect(linesOf('mine')).toEqual([{ type: 'start' }, line(1)]);
    expect(readFileSync(join(directory, 'requests-r-1.ndjson'), 'utf8')).toBe('theirs');
    expect(linesOf('requests-r-2.ndjson')).toEqual([{ type: 'start' }, line(2)]);
  });

  test('the directory cannot be used: lines are dropped, counted, told of once, and then written again', async () => {
    writeFileSync(join(base, 'data'), 'a file');
    open();
    for (const one of numbered(0, 3)) files.write(one);
    await until('they are dropped', () => files.dropped === 3);
    files.write(line(3));
    await until('it is dropped', () => files.dropped === 4);
    rmSync(join(base, 'data'));
    files.write(line(4));
    await until('it is written', () => files.written === 1);
    expect(linesOf('requests-r-1.ndjson')).toEqual([
      { type: 'start' },
      { type: 'dropped', count: 4, because: 'ENOTDIR' },
      line(4),
    ]);
    expect(logged).toEqual(['observe.not-written', 'observe.written-again']);
  });

  test('the disk hangs: nobody waits for it, memory is bounded, and closing does not wait for it either', async () => {
    // A pipe that nobody reads: to open it for writing waits for ever, as a disk does that is gone.
    const path = join(directory, 'requests-r-1.ndjson');
    mkdirSync(directory, { recursive: true });
    pipeAt(path);
    open({ queueBytes: 1_000 });
    for (const one of numbered(0, 10_000)) files.write(one);
    expect(files.dropped).toBeGreaterThan(9_000);
    await files.close(300);
    expect(files.written).toBe(0);
    // Somebody reads at last: what was kept arrives, behind the number of what was not.
    const kept = 10_000 - files.dropped;
    const arrived: unknown[] = [];
    const reader = createInterface(createReadStream(path));
    reader.on('line', (text) => arrived.push(JSON.parse(text)));
    await until('it is written', () => files.written === kept);
    await until('it has arrived', () => arrived.length === kept + 2);
    const dropped = { type: 'dropped', count: files.dropped, because: 'queue-full' };
    expect(arrived).toEqual([{ type: 'start' }, dropped, ...numbered(0, kept)]);
  });
});

test('two processes write to one directory, each to files of its own', async () => {
  open({ run: 'a' });
  files.write(line(1));
  await files.close(10_000);
  open({ run: 'b' });
  files.write(line(2));
  await files.close(10_000);
  expect(readdirSync(directory).toSorted()).toEqual(['requests-a-1.ndjson', 'requests-b-1.ndjson']);
});

function pipeAt(path: string): void {
  const made = spawnSync('mkfifo', [path]);
  if (made.status !== 0) throw new Error(String(made.stderr));
}
