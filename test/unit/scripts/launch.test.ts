/** The commands of the checkout, run as a stranger would: with an empty environment, from elsewhere. */
import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

interface Ended {
  readonly code: number | string | null;
  readonly stdout: string;
  readonly stderr: string;
}

let base: string;
let checkout: string;

/** Runs with HOME and PATH only; `path` replaces PATH. */
function run(
  command: string,
  args: readonly string[] = [],
  { cwd = base, path = process.env['PATH'] ?? '' }: { cwd?: string; path?: string } = {},
): Promise<Ended> {
  const environment = { HOME: base, PATH: path };
  return new Promise((resolve) => {
    execFile(command, [...args], { cwd, env: environment }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : (error.code ?? null), stdout, stderr });
    });
  });
}

/** A checkout in a path with spaces, with the packages of this one and a command line that repeats what it got. */
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), 'onewriter scripts '));
  checkout = join(base, 'a check out');
  mkdirSync(join(checkout, 'src', 'cli'), { recursive: true });
  cpSync('scripts', join(checkout, 'scripts'), { recursive: true });
  cpSync('package.json', join(checkout, 'package.json'));
  cpSync('package-lock.json', join(checkout, 'package-lock.json'), { preserveTimestamps: true });
  // Only the commands, with a record of its own: nothing that npm could do here reaches the real packages.
  mkdirSync(join(checkout, 'node_modules'));
  symlinkSync(join(process.cwd(), 'node_modules', '.bin'), join(checkout, 'node_modules', '.bin'));
  writeFileSync(join(checkout, 'node_modules', '.package-lock.json'), '{}');
  const repeat = `const node: string = process.versions.node;
console.log(JSON.stringify({ node, cwd: process.cwd(), args: process.argv.slice(2) }));
process.exitCode = 3;\n`;
  writeFileSync(join(checkout, 'src', 'cli', 'main.ts'), repeat);
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

describe('scripts/onewriter', () => {
  test('runs the command line under Node 24, passing arguments, directory and exit status on', async () => {
    const ended = await run(join(checkout, 'scripts', 'onewriter'), ['plan', '--reason', 'two words', '']);
    expect(ended).toMatchObject({ code: 3, stderr: '' });
    expect(JSON.parse(ended.stdout)).toEqual({
      node: expect.stringMatching(/^24\./),
      cwd: base,
      args: ['plan', '--reason', 'two words', ''],
    });
  });

  test('is found through symbolic links, also relative ones and links to links', async () => {
    symlinkSync('a check out/scripts/onewriter', join(base, 'first'));
    mkdirSync(join(base, 'bin'));
    symlinkSync('../first', join(base, 'bin', 'onewriter'));
    const ended = await run('./bin/onewriter', ['status']);
    expect(JSON.parse(ended.stdout)).toMatchObject({ args: ['status'] });
  });

  test('is found by name on PATH', async () => {
    const path = `${join(checkout, 'scripts')}:${process.env['PATH'] ?? ''}`;
    const ended = await run('/bin/sh', ['-c', 'onewriter help'], { path });
    expect(JSON.parse(ended.stdout)).toMatchObject({ args: ['help'] });
  });

  test('runs many times at once', async () => {
    const all = await Promise.all(
      Array.from({ length: 4 }, () => run(join(checkout, 'scripts', 'onewriter'))),
    );
    expect(all.map(({ code, stderr }) => ({ code, stderr }))).toEqual(Array(4).fill({ code: 3, stderr: '' }));
  });

  test('reaches the real command line', async () => {
    const main = `import ${JSON.stringify(join(process.cwd(), 'src', 'cli', 'main.ts'))};\n`;
    writeFileSync(join(checkout, 'src', 'cli', 'main.ts'), main);
    const ended = await run(join(checkout, 'scripts', 'onewriter'), ['help']);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toContain('flip');
  });
});

describe('on a machine that has almost nothing', () => {
  let bare: string;
  let path: string;
  beforeAll(async () => {
    bare = join(base, 'bare');
    path = join(bare, 'tools');
    mkdirSync(path, { recursive: true });
    cpSync('scripts', join(bare, 'scripts'), { recursive: true });
    cpSync('package-lock.json', join(bare, 'package-lock.json'));
    const tools = 'for tool in dirname readlink sha256sum cut cat mkdir flock; do command -v "$tool"; done';
    const found = await run('/bin/sh', ['-c', tools]);
    for (const tool of found.stdout.trim().split('\n')) {
      symlinkSync(tool, join(path, tool.split('/').at(-1) ?? ''));
    }
  });

  test('without Node, one sentence says what to install', async () => {
    const ended = await run('/bin/sh', [join(bare, 'scripts', 'onewriter'), 'help'], { path });
    expect(ended).toMatchObject({ code: 1, stdout: '' });
    expect(ended.stderr).toMatch(/^onewriter: Node\.js and npm are needed[^\n]*install Node\.js 18[^\n]*\n$/);
  });

  test('without Redis and a way to install it, one sentence names three ways', async () => {
    const script = 'root=$1; . "$root/scripts/lib/prepare.sh"; prepare_redis; echo went on';
    const ended = await run('/bin/sh', ['-c', script, 'sh', bare], { path });
    expect(ended).toMatchObject({ code: 1, stdout: '' });
    expect(ended.stderr).toMatch(
      /^onewriter: redis-server is needed[^\n]*apt-get install[^\n]*brew install[^\n]*docker run[^\n]*\n$/,
    );
  });

  test('without PostgreSQL, a note says what will fail, and things go on', async () => {
    const script =
      'root=$1; . "$root/scripts/lib/prepare.sh"; postgres_is_there() { false; }; prepare_postgres; echo went on';
    const ended = await run('/bin/sh', ['-c', script, 'sh', bare], { path });
    expect(ended).toMatchObject({ code: 0, stdout: 'went on\n' });
    expect(ended.stderr).toMatch(/^onewriter: PostgreSQL is missing[^\n]*\n$/);
  });

  test('without wrk, a note says so, and things go on', async () => {
    const script =
      'root=$1; . "$root/scripts/lib/prepare.sh"; wrk_is_there() { false; }; prepare_wrk; echo went on';
    const ended = await run('/bin/sh', ['-c', script, 'sh', bare], { path });
    expect(ended).toMatchObject({ code: 0, stdout: 'went on\n' });
    expect(ended.stderr).toMatch(/^onewriter: wrk is missing[^\n]*\n$/);
  });
});

describe('every script', () => {
  const scripts = ['scripts/onewriter', 'scripts/demo', 'scripts/bench', 'scripts/test', '.ci/run'];
  test.each(scripts)('%s is executable and valid for a plain shell', async (script) => {
    const ended = await run('/bin/sh', ['-c', `test -x ${script} && /bin/sh -n ${script}`], {
      cwd: process.cwd(),
    });
    expect(ended).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  test.each(['build-guard', 'simulate'])('%s --help prints its usage and writes nothing', async (script) => {
    const ended = await run(join(checkout, 'scripts', script), ['--help']);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toContain(`usage: scripts/${script}`);
    expect(existsSync(join(base, '--help'))).toBe(false);
  });

  test('.ci/run calls scripts/test', () => {
    expect(readFileSync('.ci/run', 'utf8')).toContain('exec "$root/scripts/test"');
  });
});
