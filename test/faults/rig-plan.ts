/** What a rig is made of: ports, configuration files, and the command of every process. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { AdminClient } from './admin-client.ts';
import { Child, stablePort } from './children.ts';
import { Relay } from './relay.ts';
import type { StoreNews } from './store-faults.ts';
import type { Store } from './words.ts';

/** Short, so that a minute holds many leases; everything that must be longer than another still is. */
export const timing = {
  leaseMs: 2_000,
  writeTimeoutMs: 2_000,
  settleMs: 1_000,
  fenceMs: 2_500,
  drainMs: 1_000,
  holdMs: 4_000,
} as const;
/** A silent member is proven gone after this. */
export const goneMs = timing.leaseMs + timing.writeTimeoutMs + timing.settleMs;

export const proxyNames = ['proxy-1', 'proxy-2', 'proxy-3'] as const;
export const workerNames = ['worker-1', 'worker-2'] as const;
export type ProxyName = (typeof proxyNames)[number];
export type Part = ProxyName | (typeof workerNames)[number] | 'admin';
const parts: readonly Part[] = [...proxyNames, ...workerNames, 'admin'];

/** Its wall clock can be moved, where libfaketime is installed. */
export const jumpingProxy: ProxyName = 'proxy-3';
const faketimeLibrary = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib']
  .map((directory) => join(directory, 'faketime/libfaketimeMT.so.1'))
  .find((path) => existsSync(path));
export const clockCanJump = faketimeLibrary !== undefined;

const root = resolve(import.meta.dirname, '../..');
const secret = 'the-secret-of-a-chaos-run';
const platformToken = 'token-of-the-copies';
const adminToken = 'token-of-the-operator';

export interface RigPlan {
  readonly directory: string;
  readonly redisPort: number;
  readonly redis: Child;
  readonly stores: Readonly<Record<Store, Child>>;
  readonly parts: ReadonlyMap<Part, Child>;
  readonly relays: ReadonlyMap<Part, Relay>;
  readonly proxies: readonly { readonly name: ProxyName; readonly port: number }[];
  readonly admin: AdminClient;
  /** Who waits for a store to hold a call, by the name of the rule. */
  readonly heldListeners: Map<string, () => void>;
}

export const clockPath = (directory: string): string => join(directory, 'clock');
export const logPath = (directory: string, store: Store): string => join(directory, `${store}.ndjson`);

export interface RigOptions {
  /** What users write in the app is copied back to legacy. */
  readonly window?: boolean;
}

/** Nothing runs yet but the relays. */
export async function planRig(directory: string, seed: number, options: RigOptions): Promise<RigPlan> {
  const redisPort = await stablePort();
  const adminPort = await stablePort();
  const storePorts = { legacy: await stablePort(), app: await stablePort() };
  const proxies = await Promise.all(proxyNames.map(async (name) => ({ name, port: await stablePort() })));
  const relays = new Map<Part, Relay>();
  for (const part of parts) relays.set(part, await Relay.open(await stablePort(), redisPort));
  const heldListeners = new Map<string, () => void>();
  const hear = (message: unknown): void => {
    const { rule } = message as StoreNews;
    heldListeners.get(rule)?.();
    heldListeners.delete(rule);
  };
  writeFileSync(clockPath(directory), '+0');
  const children = new Map<Part, Child>();
  for (const part of parts) {
    const path = join(directory, `${part}.json`);
    const ports = {
      redis: relays.get(part)?.port ?? 0,
      proxy: proxies.find(({ name }) => name === part)?.port ?? 0,
      admin: adminPort,
    };
    writeFileSync(path, JSON.stringify(configuration(directory, storePorts, ports, options), undefined, 2));
    children.set(part, new Child(commandOf(part, path, directory), directory));
  }
  const store = (name: Store): Child => storeProcess(name, storePorts[name], directory, seed, hear);
  return {
    ...{ directory, redisPort, relays, proxies, heldListeners, parts: children },
    redis: redisProcess(redisPort, directory),
    stores: { legacy: store('legacy'), app: store('app') },
    admin: new AdminClient(`http://127.0.0.1:${adminPort}`, adminToken),
  };
}

function configuration(
  directory: string,
  stores: Readonly<Record<Store, number>>,
  ports: { readonly redis: number; readonly proxy: number; readonly admin: number },
  { window = false }: RigOptions,
): object {
  const connector = {
    kind: 'rest',
    timeoutMs: timing.writeTimeoutMs,
    records: {
      item: {
        list: {
          path: '/items',
          query: { owner: '{partition}', updated_since: '{since}', limit: '50', cursor: '{cursor}' },
          items: 'data',
          next: 'next',
        },
        get: { path: '/items/{id}' },
        put: { method: 'PUT', path: '/items/{id}' },
        delete: { path: '/items/{id}' },
        id: 'id',
        partition: 'owner_id',
        version: 'updated_at',
        deleted: 'deleted_at',
      },
    },
  };
  const store = (port: number): object => ({
    url: `http://127.0.0.1:${port}`,
    writeTimeoutMs: timing.writeTimeoutMs,
  });
  const { leaseMs, settleMs, fenceMs, drainMs, holdMs } = timing;
  const headers = { authorization: `Bearer ${platformToken}` };
  return {
    proxy: { port: ports.proxy, debugHeaders: true },
    admin: { port: ports.admin, tokens: [{ name: 'ops', role: 'admin', token: adminToken }] },
    redis: { url: `redis://127.0.0.1:${ports.redis}` },
    dataDir: join(directory, 'data'),
    secret,
    ledger: { leaseMs },
    stores: {
      legacy: { ...store(stores.legacy), settleMs, guard: false, connector: { ...connector, headers } },
      app: { ...store(stores.app), settleMs: 0, guard: true, connector },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    partition: [{ header: 'x-partition' }],
    routes: [
      { methods: ['PUT', 'DELETE'], path: '/items/:id', record: { kind: 'item', id: 'path.id' } },
      { methods: ['POST'], path: '/items', record: { kind: 'item', id: 'response.id' } },
    ],
    flip: { fenceMs, drainMs, holdMs, maxLagMs: fenceMs, batch: 4 },
    sync: { pollMs: 500, rollbackWindow: window },
  };
}

function commandOf(part: Part, config: string, directory: string): ConstructorParameters<typeof Child>[0] {
  const role = part.split('-', 1)[0] ?? '';
  const clock =
    part === jumpingProxy && faketimeLibrary !== undefined
      ? {
          LD_PRELOAD: faketimeLibrary,
          FAKETIME_TIMESTAMP_FILE: clockPath(directory),
          FAKETIME_CACHE_DURATION: '1',
          FAKETIME_DONT_FAKE_MONOTONIC: '1',
          DONT_FAKE_MONOTONIC: '1',
        }
      : {};
  return {
    name: part,
    program: process.execPath,
    parameters: [
      '--disable-warning=ExperimentalWarning',
      join(root, 'src/cli/main.ts'),
      role,
      '--config',
      config,
    ],
    env: clock,
    // A worker says nothing when it is up.
    ...(role === 'worker' ? {} : { ready: new RegExp(`${role} +http`) }),
  };
}

function redisProcess(port: number, directory: string): Child {
  const data = join(directory, 'redis');
  mkdirSync(data);
  return new Child(
    {
      name: 'redis',
      program: 'redis-server',
      parameters: [
        ...['--port', String(port), '--bind', '127.0.0.1', '--dir', data, '--save', ''],
        ...['--appendonly', 'yes', '--appendfsync', 'always', '--maxmemory-policy', 'noeviction'],
      ],
      ready: /Ready to accept connections/,
    },
    directory,
  );
}

function storeProcess(
  name: Store,
  port: number,
  directory: string,
  seed: number,
  onMessage: (message: unknown) => void,
): Child {
  const options = {
    ...{ store: name, port: String(port), log: logPath(directory, name), secret, token: platformToken },
    ...{ seed: String(seed), 'give-up-ms': String(timing.writeTimeoutMs) },
  };
  return new Child(
    {
      name,
      program: process.execPath,
      parameters: [
        '--disable-warning=ExperimentalWarning',
        join(import.meta.dirname, 'store.ts'),
        ...Object.entries(options).flatMap(([key, value]) => [`--${key}`, value]),
      ],
      ready: /listens on/,
      onMessage,
    },
    directory,
  );
}
