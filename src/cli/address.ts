/** Where the admin API is and with which token: from the flags, the environment, or the configuration. */
import { loadConfig, type LoadedConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import type { AdminAddress } from './client.ts';
import type { Environment } from './command.ts';
import { type Attempt, failedAttempt, refusal } from './exit.ts';

export interface AddressFlags {
  readonly url: string | undefined;
  readonly token: string | undefined;
  readonly configPath: string;
  readonly env: Environment;
}

/** The configuration is read only where flags and environment leave something open. */
export function findAdmin(flags: AddressFlags): Attempt<AdminAddress> {
  const url = flags.url ?? nonEmpty(flags.env['ONEWRITER_ADMIN']);
  const token = flags.token ?? nonEmpty(flags.env['ONEWRITER_TOKEN']);
  if (url !== undefined && !/^https?:\/\/[^/?#]+(\/[^?#]*)?$/.test(url)) {
    return failedAttempt(
      refusal('usage', '--admin must be an http or https URL, like http://127.0.0.1:8081.'),
    );
  }
  if (url !== undefined && token !== undefined) {
    return { ok: true, value: { url: url.replace(/\/+$/, ''), token } };
  }
  const loaded = readConfig(flags.configPath, flags.env);
  if (!loaded.ok) {
    const { detail } = loaded.refusal;
    return failedAttempt({ ...loaded.refusal, detail: `${detail} Or give both --admin and --token.` });
  }
  const found = url?.replace(/\/+$/, '') ?? addressOf(loaded.value.config);
  if (found === undefined) {
    const detail = 'admin.port is 0, so the address is not in the configuration; give it with --admin URL.';
    return failedAttempt(refusal('no-admin-address', detail));
  }
  const secret = token ?? tokenOf(loaded.value.config);
  if (secret === undefined && loaded.value.config.proxy.mode === 'observe') {
    const detail =
      'proxy.mode is observe, and an observing proxy has no admin API: nothing is copied and nothing can be moved. "onewriter observe report" shows what it has seen, "onewriter doctor" what it needs.';
    return failedAttempt(refusal('no-admin-api', detail));
  }
  if (secret === undefined) {
    const detail = 'admin.tokens holds no token in plain; give one with --token or ONEWRITER_TOKEN.';
    return failedAttempt(refusal('no-token', detail));
  }
  return { ok: true, value: { url: found, token: secret } };
}

/** All problems of the file, one line each. */
export function readConfig(path: string, env: Environment): Attempt<LoadedConfig> {
  const loaded = loadConfig({ path, env });
  if (loaded.ok) return { ok: true, value: loaded };
  const lines = loaded.problems.map((problem) =>
    problem.path === '' ? problem.message : `${problem.path}: ${problem.message}`,
  );
  const count = lines.length === 1 ? 'a problem' : `${lines.length} problems`;
  return failedAttempt({ ...refusal('bad-config', `The configuration ${path} has ${count}.`), lines });
}

function addressOf({ admin: { host, port } }: Config): string | undefined {
  if (port === 0) return undefined;
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
}

function tokenOf({ admin: { tokens } }: Config): string | undefined {
  const inPlain = tokens.filter((entry) => entry.token !== undefined);
  return (inPlain.find((entry) => entry.role === 'operator') ?? inPlain[0])?.token;
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text;
}
