/** Checks of this process and its machine: Node, ports, the data directory. */
import { accessSync, constants, existsSync } from 'node:fs';
import { request } from 'node:http';
import { request as requestTls } from 'node:https';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { dirname, resolve } from 'node:path';
import { json } from 'node:stream/consumers';
import type { Config } from '../../config/schema.ts';
import { fail, type Finding, lookMs, ok, warn } from './finding.ts';

/** undici 8 throws on import below this. */
const nodeNeeded = [22, 19] as const;

export function checkNode(versionText: string): Finding {
  const [major = 0, minor = 0] = versionText.split('.').map(Number);
  const enough = major > nodeNeeded[0] || (major === nodeNeeded[0] && minor >= nodeNeeded[1]);
  if (enough) return ok('node', `version ${versionText}`);
  const detail = `version ${versionText} is too old`;
  return fail('node', detail, `Use Node ${nodeNeeded.join('.')} or newer; scripts/onewriter brings its own.`);
}

/** A process that takes traffic uses one core. */
export function checkProcesses({ proxy }: Config, cores = availableParallelism()): Finding[] {
  const { processes } = proxy;
  if (processes === 1) return [];
  const detail = `${processes}, on a machine with ${cores === 1 ? 'one core' : `${cores} cores`}`;
  if (processes <= cores) return [ok('proxy.processes', detail)];
  const advice = 'Take at most one for each core: more of them only take turns.';
  return [warn('proxy.processes', detail, advice)];
}

export function checkDataDir(dataDir: string): Finding {
  const directory = resolve(dataDir);
  let existing = directory;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  try {
    accessSync(existing, constants.W_OK | constants.X_OK);
    return ok('dataDir', directory);
  } catch {
    return fail(
      'dataDir',
      `${existing} may not be written by this user`,
      'Change its owner, or set dataDir.',
    );
  }
}

/** A port that is taken by onewriter itself is fine: the deployment runs already. */
export async function checkPorts(config: Config): Promise<Finding[]> {
  const admin = { ...config.admin, scheme: 'http', path: '/healthz' } as const;
  return Promise.all([checkProxyPort(config), checkPort('admin.port', admin)]);
}

export function checkProxyPort({ proxy }: Config): Promise<Finding> {
  const scheme = proxy.tls === undefined ? 'http' : 'https';
  return checkPort('proxy.port', { ...proxy, scheme, path: '/.well-known/onewriter/health' });
}

/** What listens on an address, if it is onewriter: where it says that it lives. */
interface Expected {
  readonly host: string;
  readonly port: number;
  readonly scheme: 'http' | 'https';
  readonly path: string;
}

async function checkPort(setting: string, expected: Expected): Promise<Finding> {
  const { host, port } = expected;
  if (port === 0) return ok(setting, 'a free port is taken at start');
  const code = await tryToListen(host, port);
  if (code === undefined) return ok(setting, `${host}:${port} is free`);
  if (code === 'EADDRINUSE' && (await answersAsOurs(expected))) {
    return ok(setting, `${host}:${port} is in use by onewriter itself`);
  }
  if (code === 'EADDRINUSE') {
    return fail(setting, `${host}:${port} is in use by another process`, `Stop it, or change ${setting}.`);
  }
  return fail(setting, `${host}:${port} cannot be listened on (${code})`, 'Change the host or the port.');
}

function tryToListen(host: string, port: number): Promise<string | undefined> {
  return new Promise((settle) => {
    const server = createServer();
    server.once('error', (error: Error & { code?: string }) => settle(error.code ?? error.message));
    server.listen(port, host, () => server.close(() => settle(undefined)));
  });
}

async function answersAsOurs({ host, port, scheme, path }: Expected): Promise<boolean> {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const where = { host: reachable, port, path, agent: false };
  try {
    const body = await new Promise<unknown>((resolve, reject) => {
      const signal = AbortSignal.timeout(lookMs);
      const asked =
        // Nothing is told to it, and its certificate is for the names that clients use.
        scheme === 'https'
          ? requestTls({ ...where, signal, rejectUnauthorized: false })
          : request({ ...where, signal });
      asked.once('error', reject);
      asked.once('response', (answer) => json(answer).then(resolve, reject));
      asked.end();
    });
    return typeof body === 'object' && body !== null && 'status' in body;
  } catch {
    return false;
  }
}
