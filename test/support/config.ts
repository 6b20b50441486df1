/** A small configuration that loads, as text, and ways to spoil it. */
import { parseConfig, type ConfigProblem, type LoadedConfig } from '../../src/config/load.ts';
import type { Environment } from '../../src/config/placeholders.ts';

const recordKind = {
  list: { path: '/items', query: { owner: '{partition}' } },
  get: { path: '/items/{id}' },
  put: { path: '/items/{id}' },
  id: 'id',
  partition: 'owner',
};

export function sound(): Record<string, unknown> {
  return {
    secret: 'a secret of the guard',
    admin: { tokens: [{ name: 'ops', role: 'operator', token: 'operator-token' }] },
    stores: {
      legacy: {
        url: 'http://127.0.0.1:9001',
        connector: { kind: 'rest', records: { item: structuredClone(recordKind) } },
      },
      app: {
        url: 'http://127.0.0.1:9002',
        connector: { kind: 'rest', records: { item: structuredClone(recordKind) } },
      },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
  };
}

/** The sound configuration with `value` at the dotted path; `undefined` removes what is there. */
export function soundWith(changes: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const config = sound();
  for (const [path, value] of Object.entries(changes)) {
    const names = path.split('.');
    const last = names.pop() ?? '';
    let at: Record<string, unknown> = config;
    for (const name of names) {
      at[name] ??= {};
      at = at[name] as Record<string, unknown>;
    }
    if (value === undefined) delete at[last];
    else at[last] = value;
  }
  return config;
}

export function problemsWith(
  changes: Readonly<Record<string, unknown>>,
  environment: Environment = {},
): readonly ConfigProblem[] {
  const result = parseConfig(JSON.stringify(soundWith(changes)), environment, 'test.json');
  return result.ok ? [] : result.problems;
}

/** Throws, listing the problems, where the configuration is refused. */
export function loadedWith(
  changes: Readonly<Record<string, unknown>> = {},
  environment: Environment = {},
): LoadedConfig {
  const result = parseConfig(JSON.stringify(soundWith(changes)), environment, 'test.json');
  if (!result.ok)
    throw new Error(result.problems.map(({ path, message }) => `${path} ${message}`).join('\n'));
  return result;
}
