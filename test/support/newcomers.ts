/** Real proxies on a real ledger, between clients and two stores, of which the app judges by the guard's rule. */
import { type Config, configSchema } from '../../src/config/schema.ts';
import {
  type GuardAccess,
  guardAdvance,
  type GuardRow,
  guardSeal,
  guardVerdict,
  unknownToGuard,
} from '../../src/core/guard.ts';
import type { StoreName } from '../../src/core/ownership.ts';
import { Claims } from '../../src/ledger/claims.ts';
import type { GuardCalls } from '../../src/core/ports.ts';
import { DirectoryMemory, RedisDirectory } from '../../src/ledger/directory.ts';
import type { Membership } from '../../src/ledger/membership.ts';
import { createProxy, type Proxy } from '../../src/proxy/proxy.ts';
import { unlimited } from '../../src/stores/budget.ts';
import { RestGuardCalls } from '../../src/stores/rest/guard-calls.ts';
import { createRestStore } from '../../src/stores/rest/store.ts';
import { openLedger, type TestLedger } from './ledger.ts';
import type { TestRedis } from './redis.ts';
import { type SeenCall, startRestStore, type TestRestStore } from './rest-store.ts';

export interface TestProxy {
  readonly member: Membership;
  readonly claims: Claims;
  readonly proxy: Proxy;
  readonly logged: { readonly event: string; readonly fields: Record<string, unknown> }[];
  readonly send: (user: string, method?: 'GET' | 'POST', path?: string) => Promise<Sent>;
  /** Orderly: what is in flight ends, then the member leaves. */
  readonly leave: () => Promise<void>;
}

export interface Sent {
  readonly status: number;
  readonly store: string | null;
  readonly code: string | undefined;
}

export interface NewcomerRig {
  readonly parts: TestLedger;
  /** The directory's entries. */
  readonly book: RedisDirectory;
  readonly guards: GuardCalls;
  readonly legacy: TestRestStore;
  readonly app: TestRestStore;
  /** Rows of the app's guard. */
  readonly guard: Map<string, GuardRow>;
  /** Called before the guard takes a seal. */
  beforeSeal: (partition: string) => void | Promise<void>;
  /** Writes that each store took, by user. */
  readonly took: Readonly<Record<StoreName, Map<string, number>>>;
  start(options?: ProxyOptions): Promise<TestProxy>;
  stop(): Promise<void>;
}

export interface ProxyOptions {
  readonly newPartitions?: StoreName;
  readonly guarded?: boolean;
  readonly holdMs?: number;
  readonly config?: Record<string, unknown>;
}

const secret = 'a-secret-of-the-newcomers';

export async function startNewcomerRig(server: TestRedis): Promise<NewcomerRig> {
  const parts = await openLedger(server);
  const took = { legacy: new Map<string, number>(), app: new Map<string, number>() };
  const guard = new Map<string, GuardRow>();
  const proxies: TestProxy[] = [];
  const take = (store: StoreName, { method, headers }: SeenCall): { status: number } => {
    const user = String(headers['x-user'] ?? 'nobody');
    if (method === 'POST') took[store].set(user, (took[store].get(user) ?? 0) + 1);
    return { status: 200 };
  };
  const legacy = await startRestStore({ intercept: (call) => take('legacy', call) });
  const app = await startRestStore({
    intercept: async (call) => {
      const asked = /^\/\.well-known\/onewriter\/guard\/(\w+)$/.exec(call.path)?.[1];
      const partition = partitionOf(call);
      const epoch = Number(call.body?.['epoch'] ?? call.headers['onewriter-epoch'] ?? 0);
      if (asked === 'seal') await rig.beforeSeal(partition);
      const row = guard.get(partition) ?? unknownToGuard;
      if (asked === 'seal') guard.set(partition, guardSeal(row, epoch));
      else if (asked === 'advance') guard.set(partition, guardAdvance(row, epoch));
      else if (call.headers['onewriter-access'] === undefined) return take('app', call);
      else {
        const access = String(call.headers['onewriter-access']) as GuardAccess;
        const verdict = guardVerdict(row, access, epoch);
        if (!verdict.accept) return { status: 409, body: { code: verdict.code } };
        if (access !== 'read') guard.set(partition, verdict.row);
        return take('app', call);
      }
      return { status: 200, body: { ...guard.get(partition), accept: true } };
    },
  });
  const book = new RedisDirectory(parts.redis, parts.ledger.writes);
  const judging = configOf({ legacy, app }, true, {});
  const client = createRestStore('app', judging, unlimited).client;
  const guards = new RestGuardCalls(new Map([['app', client] as const]));
  const rig: NewcomerRig = {
    ...{ parts, book, guards, legacy, app, guard, took },
    beforeSeal: () => undefined,
    start: async (options = {}) => {
      const proxy = await startProxy(rig, options);
      proxies.push(proxy);
      return proxy;
    },
    stop: async () => {
      for (const { claims, proxy } of proxies) {
        claims.stop();
        await proxy.stop();
      }
      await parts.close();
      await Promise.all([legacy.stop(), app.stop()]);
    },
  };
  return rig;
}

/** Stands for the hash of the configuration. */
export function rulesOf(newPartitions: StoreName): string {
  return `new ones begin in ${newPartitions}`;
}

function configOf(
  { legacy, app }: Pick<NewcomerRig, 'legacy' | 'app'>,
  guarded: boolean,
  changes: Record<string, unknown>,
): Config {
  return configSchema.parse({
    secret,
    proxy: { port: 0, debugHeaders: true },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    // The headers for a guard also show a test under which partition a write went.
    stores: { legacy: { url: legacy.url, guard: true }, app: { url: app.url, guard: guarded } },
    ...changes,
  });
}

/** Of a guard call, or of a request that is signed for a guard. */
export function partitionOf({ body, headers }: SeenCall): string {
  const named = body?.['partition'] ?? headers['onewriter-partition'];
  return typeof named === 'string' ? named : '';
}

async function startProxy(
  { parts, book, guards, legacy, app }: NewcomerRig,
  { newPartitions = 'app', guarded = true, holdMs = 3_000, config: changes = {} }: ProxyOptions,
): Promise<TestProxy> {
  const config = configOf({ legacy, app }, guarded, { flip: { holdMs }, newPartitions, ...changes });
  const rules = { hash: rulesOf(newPartitions), newPartitions };
  const directory = new DirectoryMemory((user) => book.partitionOf(user));
  const member = await parts.join({ rulesHash: rules.hash, newPartitions, directory });
  const logged: TestProxy['logged'] = [];
  const log = (_level: string, event: string, fields: Record<string, unknown> = {}): void =>
    void logged.push({ event, fields });
  const claims = new Claims({
    ...{ ledger: parts.ledger, member, rules, log, withinMs: holdMs },
    seal: guarded ? (stamp) => guards.seal('app', stamp, new AbortController().signal) : undefined,
  });
  const proxy = createProxy({
    ...{ config, gate: member, homes: claims, directory, log },
    doorbell: { ring: () => undefined },
    doubts: { note: () => undefined },
  });
  const { port } = await proxy.listen();
  return {
    ...{ member, claims, proxy, logged },
    send: async (user, method = 'POST', path = '/a') => {
      const headers = { 'content-type': 'application/json', ...(user === '' ? {} : { 'x-user': user }) };
      const body = method === 'POST' ? '{}' : undefined;
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body: body ?? null });
      const text = await answer.text();
      const { code } = (text === '' ? {} : JSON.parse(text)) as { code?: string };
      return { status: answer.status, store: answer.headers.get('onewriter-store'), code };
    },
    leave: async () => {
      await proxy.drain(5_000);
      await proxy.stop();
      claims.stop();
      await member.leave(2_000);
    },
  };
}
