/** `up`, `proxy`, `admin`, `worker`: start a role, say where it listens, and end gracefully on a signal. */
import { readConfig } from '../address.ts';
import { loadConfig } from '../../config/load.ts';
import { needsRestart } from '../../config/reload.ts';
import type { Config } from '../../config/schema.ts';
import type { Command, Environment } from '../command.ts';
import type { Running, ServerRole } from '../composition.ts';
import { type CliRefusal, exitCodes, refusal } from '../exit.ts';
import { jsonLog, type Log } from '../../log.ts';

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
  async run({ composition, configPath, env, interrupted, onHangup, output }) {
    const loaded = readConfig(configPath, env);
    if (!loaded.ok) return loaded.refusal;
    const { config, hash: configHash, warnings } = loaded.value;
    for (const warning of warnings) output.aside(`warning: ${warning}`);
    const log = jsonLog((line) => output.aside(line.trimEnd()));
    const rules = { config, configHash };
    let running: Running | undefined;
    let stopping = false;
    // From the beginning: a signal that nobody asks for ends a process.
    const forget = onHangup(() => {
      running?.renewCertificate();
      if (stopping)
        log('warn', 'rules.not-changed', { detail: 'Nothing was changed: this process is stopping.' });
      else void reloadRules(running, rules, configPath, env, log);
    });
    try {
      running = await (await composition()).startRole(role, { config, configHash, env, log });
    } catch (error) {
      forget();
      return startRefusal(error, config);
    }
    for (const [name, url] of Object.entries(running.addresses)) {
      output.event('address', { name, url });
      output.line(`${name.padEnd(7)} ${url}`);
    }
    for (const warning of running.warnings) {
      output.event('warning', { detail: warning });
      output.aside(output.paint('red', `onewriter: ${warning}`));
    }
    const ended = await Promise.race([
      running.failed,
      new Promise<'asked'>((resolve) => {
        if (interrupted.aborted) resolve('asked');
        else interrupted.addEventListener('abort', () => resolve('asked'), { once: true });
      }),
    ]);
    if (ended === 'asked') output.aside('Stopping; a second signal ends at once.');
    // To the very end: what is under way would be broken off by a signal that nobody asks for.
    stopping = true;
    await running.stop();
    forget();
    if (ended === 'asked') return exitCodes.done;
    return refusal('part-failed', `A part of onewriter failed, so it stopped: ${reasonsOf(ended)}`);
  },
}));

/** Loads the file again; `rules` says what the process runs by, before and after. */
async function reloadRules(
  running: Running | undefined,
  rules: { config: Config; configHash: string },
  configPath: string,
  env: Environment,
  log: Log,
): Promise<void> {
  const stays = (because: string): void =>
    log('warn', 'rules.not-changed', { detail: `Nothing was changed: ${because}.` });
  if (running === undefined) {
    stays('this process is just starting; send the signal again');
    return;
  }
  const loaded = loadConfig({ path: configPath, env });
  if (!loaded.ok) {
    const found = loaded.problems.map(({ path, message }) => `${path} ${message}`.trim());
    stays(`the configuration has problems (${found.join('; ')})`);
    return;
  }
  const { config, hash: configHash } = loaded;
  const sections = needsRestart(rules.config, config);
  if (sections.length > 0) stays(whyNotLive(sections));
  else if (configHash === rules.configHash) stays('the file says the same as before');
  else if (await running.reload({ config, configHash })) Object.assign(rules, { config, configHash });
}

/** Why these sections cannot change now, and what can be done instead. */
export function whyNotLive(sections: readonly string[]): string {
  const restart = `a change of ${sections.join(', ')} needs a restart`;
  if (!sections.includes('cohorts')) return restart;
  return `${restart}; a further cohort can be made without one, by PUT /v1/cohorts/NAME of the admin API (role admin)`;
}
type Listeners = Readonly<
  Partial<Record<'admin' | 'proxy' | 'webhooks', { readonly port: number } | undefined>>
>;

/** An operator's error in one sentence: which setting to change, never a stack. */
export function startRefusal(error: unknown, config: Listeners): CliRefusal {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { code, port, address } = at as Error & { code?: string; port?: number; address?: string };
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') continue;
    const settings = ['admin', 'proxy', 'webhooks'] as const;
    const setting = settings.find((name) => port !== undefined && port === config[name]?.port);
    if (setting === undefined && code === 'EACCES') continue;
    const change = setting === undefined ? 'proxy.port, admin.port or webhooks.port' : `${setting}.port`;
    const why = {
      EADDRINUSE: 'is in use by another process',
      EACCES: 'may not be opened by this user',
      EADDRNOTAVAIL: 'is not an address of this machine',
    }[code];
    const host = setting === undefined ? 'proxy.host, admin.host or webhooks.host' : `${setting}.host`;
    const what = code === 'EADDRNOTAVAIL' ? host : change;
    return refusal(
      'cannot-listen',
      `${address ?? ''}:${port ?? ''} ${why}. Change ${what} in the configuration.`,
    );
  }
  return refusal('cannot-start', `onewriter could not start. ${reasonsOf(error)}`);
}

function reasonsOf(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { message, code } = at as Error & { code?: string };
    const said = parts.some((part) => part.includes(message) || part.includes(`(${code})`));
    if (message !== '' && !said) parts.push(message);
  }
  return parts.length === 0 ? String(error) : parts.join('; because ');
}
