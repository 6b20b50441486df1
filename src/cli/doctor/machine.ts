/** Checks of this process and its machine: Node, ports, the data directory. */
import { accessSync, constants, existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { dirname, resolve } from 'node:path';
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
  return Promise.all([checkProxyPort(config), checkPort('admin.port', config.admin, '/healthz')]);
}

export function checkProxyPort({ proxy }: Config): Promise<Finding> {
  return checkPort('proxy.port', proxy, '/.well-known/onewriter/health');
}

async function checkPort(
  setting: string,
  { host, port }: { readonly host: string; readonly port: number },
  healthPath: string,
): Promise<Finding> {
  if (port === 0) return ok(setting, 'a free port is taken at start');
  const code = await tryToListen(host, port);
  if (code === undefined) return ok(setting, `${host}:${port} is free`);
  if (code === 'EADDRINUSE' && (await answersAsOurs(host, port, healthPath))) {
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

async function answersAsOurs(host: string, port: number, path: string): Promise<boolean> {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const name = reachable.includes(':') ? `[${reachable}]` : reachable;
  try {
    const answer = await fetch(`http://${name}:${port}${path}`, { signal: AbortSignal.timeout(lookMs) });
    const body: unknown = await answer.json();
    return typeof body === 'object' && body !== null && 'status' in body;
  } catch {
    return false;
  }
}
