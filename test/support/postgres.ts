/**
 * A real PostgreSQL server for one test file: a fresh cluster in a temporary directory, on a free loopback
 * port, without passwords. PostgreSQL refuses to run as root, so under root it runs as the user postgres.
 */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chown, mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';

export interface TestPostgres {
  readonly url: string;
  stop(): Promise<void>;
}

const run = promisify(execFile);
const installationsRoot = '/usr/lib/postgresql';

/** Throws with a sentence on how to install when there is no server on this machine. */
export async function startPostgres(startMs = 20_000): Promise<TestPostgres> {
  const binaries = await findBinaries();
  const account = await serverAccount();
  const directory = await mkdtemp('/tmp/onewriter-postgres-');
  if (account !== undefined) await chown(directory, account.uid, account.gid);
  const data = join(directory, 'data');
  await run(
    join(binaries, 'initdb'),
    ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'],
    { ...account, cwd: directory },
  );
  const port = await freePort();
  const server = spawn(
    join(binaries, 'postgres'),
    // prettier-ignore
    ['-D', data, '-h', '127.0.0.1', '-p', String(port), '-k', '', '-c', 'max_connections=200', '-c', 'fsync=off'],
    { ...account, cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let log = '';
  server.stderr.on('data', (chunk: Buffer) => (log = (log + chunk.toString()).slice(-4000)));
  const ended = new Promise<void>((resolve) => {
    server.once('exit', () => resolve());
    server.once('error', () => resolve());
  });
  const endWithParent = (): void => void server.kill('SIGQUIT');
  process.once('exit', endWithParent);
  const stop = async (): Promise<void> => {
    process.removeListener('exit', endWithParent);
    // SIGINT is PostgreSQL's fast shutdown: it ends open sessions and waits for nobody.
    if (server.exitCode === null && server.signalCode === null) server.kill('SIGINT');
    await ended;
    await rm(directory, { recursive: true, force: true });
  };
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const giveUpMs = Date.now() + startMs;
  for (;;) {
    const problem = await connectProblem(url);
    if (problem === undefined) return { url, stop };
    if (Date.now() > giveUpMs || server.exitCode !== null) {
      await stop();
      throw new Error(`PostgreSQL did not start:\n${log}`, { cause: problem });
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function connectProblem(url: string): Promise<unknown> {
  const client = new Client({ connectionString: url });
  try {
    await client.connect();
    return undefined;
  } catch (error) {
    return error;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function findBinaries(): Promise<string> {
  const versions = existsSync(installationsRoot) ? await readdir(installationsRoot) : [];
  const found = versions
    .toSorted((a, b) => Number(b) - Number(a))
    .map((version) => join(installationsRoot, version, 'bin'))
    .find((folder) => existsSync(join(folder, 'initdb')) && existsSync(join(folder, 'postgres')));
  if (found === undefined) {
    throw new Error(
      `This test needs a PostgreSQL server under ${installationsRoot}; install it with "apt-get install postgresql".`,
    );
  }
  return found;
}

async function serverAccount(): Promise<{ uid: number; gid: number } | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const uid = Number((await run('id', ['-u', 'postgres'])).stdout);
  const gid = Number((await run('id', ['-g', 'postgres'])).stdout);
  return { uid, gid };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
