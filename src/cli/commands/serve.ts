/** `up`, `proxy`, `admin`, `worker`: start a role, say where it listens, and end gracefully on a signal. */
import { readConfig } from '../address.ts';
import type { Command } from '../command.ts';
import type { Running, ServerRole } from '../composition.ts';
import { type CliRefusal, exitCodes, refusal } from '../exit.ts';
import { jsonLog } from '../../log.ts';

const summaries: Readonly<Record<ServerRole, string>> = {
  up: 'Run proxy, admin API and worker in one process',
  proxy: 'Run a proxy',
  admin: 'Run the admin API and the coordinator of flips',
  worker: 'Run the copies',
};

export const servers: readonly Command[] = (['up', 'proxy', 'admin', 'worker'] as const).map((role) => ({
  name: role,
  summary: summaries[role],
  positionals: [],
  options: {},
  changes: false,
  async run({ composition, configPath, env, interrupted, output }) {
    const loaded = readConfig(configPath, env);
    if (!loaded.ok) return loaded.refusal;
    const { config, hash: configHash, warnings } = loaded.value;
    for (const warning of warnings) output.aside(`warning: ${warning}`);
    const log = jsonLog((line) => output.aside(line.trimEnd()));
    let running: Running;
    try {
      running = await (await composition()).startRole(role, { config, configHash, env, log });
    } catch (error) {
      return startRefusal(error, config.proxy.port, config.admin.port);
    }
    for (const [name, url] of Object.entries(running.addresses)) {
      output.event('address', { name, url });
      output.line(`${name.padEnd(7)} ${url}`);
    }
    const ended = await Promise.race([
      running.failed,
      new Promise<'asked'>((resolve) => {
        if (interrupted.aborted) resolve('asked');
        else interrupted.addEventListener('abort', () => resolve('asked'), { once: true });
      }),
    ]);
    if (ended === 'asked') output.aside('Stopping; a second signal ends at once.');
    await running.stop();
    if (ended === 'asked') return exitCodes.done;
    return refusal('part-failed', `A part of onewriter failed, so it stopped: ${sentenceOf(ended)}`);
  },
}));

/** An operator's error in one sentence: which setting to change, never a stack. */
export function startRefusal(error: unknown, proxyPort: number, adminPort: number): CliRefusal {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { code, port, address } = at as Error & { code?: string; port?: number; address?: string };
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') continue;
    const setting = port === adminPort ? 'admin' : port === proxyPort ? 'proxy' : undefined;
    if (setting === undefined && code === 'EACCES') continue;
    const change = setting === undefined ? 'proxy.port or admin.port' : `${setting}.port`;
    const why = {
      EADDRINUSE: 'is in use by another process',
      EACCES: 'may not be opened by this user',
      EADDRNOTAVAIL: 'is not an address of this machine',
    }[code];
    const host = setting === undefined ? 'proxy.host or admin.host' : `${setting}.host`;
    const what = code === 'EADDRNOTAVAIL' ? host : change;
    return refusal(
      'cannot-listen',
      `${address ?? ''}:${port ?? ''} ${why}. Change ${what} in the configuration.`,
    );
  }
  return refusal('cannot-start', `onewriter could not start. ${sentenceOf(error)}`);
}

function sentenceOf(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if (at.message !== '' && !parts.some((part) => part.includes(at.message))) parts.push(at.message);
  }
  return parts.length === 0 ? String(error) : parts.join('; because ');
}
