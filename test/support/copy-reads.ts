/** Several proxies with real members before two small stores that a real sync keeps equal. */
import type { Log } from '../../src/log.ts';
import { connectRedis } from '../../src/ledger/connection.ts';
import type { Membership } from '../../src/ledger/membership.ts';
import { createProxy, type Proxy } from '../../src/proxy/proxy.ts';
import { CopyWatch } from '../../src/sync/reads/copy-watch.ts';
import { openLedger, type TestLedger } from './ledger.ts';
import type { TestRedis } from './redis.ts';
import { startSyncRig, type SyncRig, type SyncRigOptions } from './sync.ts';
import { until } from './until.ts';

export interface ProxyNode {
  readonly url: string;
  readonly proxy: Proxy;
  readonly member: Membership;
  readonly watch: CopyWatch;
  /** Of its talk with the others; everything else of it goes another way. */
  readonly redis: Awaited<ReturnType<typeof connectRedis>>;
  stop(): Promise<void>;
}

export interface Seen {
  readonly status: number;
  readonly store: string | null;
  readonly lagMs: string | null;
  readonly epoch: string | null;
  readonly body: unknown;
  readonly tookMs: number;
}

export class CopyReadsRig {
  readonly sync: SyncRig;
  readonly ledger: TestLedger;
  readonly nodes: ProxyNode[] = [];
  readonly #server: TestRedis;

  private constructor(server: TestRedis, sync: SyncRig, ledger: TestLedger) {
    this.#server = server;
    this.sync = sync;
    this.ledger = ledger;
  }

  static async start(
    server: TestRedis,
    options: SyncRigOptions & { readonly maxStalenessMs?: number; readonly nodes?: number } = {},
  ): Promise<CopyReadsRig> {
    const { maxStalenessMs = 3_000, nodes = 2 } = options;
    const sync = await startSyncRig(server, {
      ...options,
      more: {
        proxy: { port: 0, debugHeaders: true },
        routes: [
          { path: '/team', reads: 'app' },
          { path: '/fresh-team', reads: 'app', maxStalenessMs },
          { path: '/people/:owner/*', partition: 'path.owner', reads: 'app', maxStalenessMs },
          {
            path: '/appointments/:id',
            methods: ['PUT', 'DELETE'],
            record: { kind: 'appointment', id: 'path.id' },
          },
          { path: '/appointments/*', reads: 'copy', maxStalenessMs },
        ],
        ...options.more,
      },
    });
    const rig = new CopyReadsRig(server, sync, await openLedger(server));
    for (let at = 0; at < nodes; at += 1) await rig.join();
    return rig;
  }

  /** `url`: of Redis as its talk with the others reaches it. */
  async join(url = this.#server.url, log: Log = () => undefined): Promise<ProxyNode> {
    const { config, sync } = this.sync;
    const member = await this.ledger.join();
    const redis = await connectRedis({ url });
    redis.on('error', () => undefined);
    const settleMs = { legacy: config.stores.legacy.settleMs, app: config.stores.app.settleMs };
    const watch = new CopyWatch({ redis, targets: ['app'], member: () => member.id, settleMs, log });
    const proxy = createProxy({
      ...{ config, gate: member, doubts: member, copies: watch, log },
      doorbell: { ring: (record) => sync.doorbell.ring(record) },
    });
    const node: ProxyNode = {
      ...{ proxy, member, watch, redis },
      url: `http://127.0.0.1:${(await proxy.listen()).port}`,
      stop: async () => {
        await proxy.stop();
        await member.stop();
        await watch.stop();
        redis.disconnect();
      },
    };
    this.nodes.push(node);
    return node;
  }

  async stop(): Promise<void> {
    for (const node of this.nodes.splice(0)) await node.stop();
    await this.ledger.close();
    await this.sync.stop();
  }

  async ask(
    node: ProxyNode | undefined,
    user: string,
    path: string,
    init: {
      readonly method?: string;
      readonly body?: unknown;
      readonly headers?: Record<string, string>;
    } = {},
  ): Promise<Seen> {
    if (node === undefined) throw new Error('there is no such proxy');
    const startedMs = performance.now();
    const answer = await fetch(`${node.url}${path}`, {
      method: init.method ?? 'GET',
      headers: { 'x-user': user, 'content-type': 'application/json', ...init.headers },
      ...(init.body === undefined ? {} : { body: JSON.stringify(init.body) }),
    });
    const tookMs = performance.now() - startedMs;
    const text = await answer.text();
    const header = (name: string): string | null => answer.headers.get(`onewriter-${name}`);
    return {
      ...{ status: answer.status, tookMs, body: text === '' ? undefined : (JSON.parse(text) as unknown) },
      ...{ store: header('store'), lagMs: header('lag-ms'), epoch: header('epoch') },
    };
  }

  write(node: ProxyNode | undefined, user: string, id: string, title: string): Promise<Seen> {
    const body = { id, owner_id: user, title };
    return this.ask(node, user, `/appointments/${id}`, { method: 'PUT', body });
  }

  /** Asks until a copy answers this user through this proxy. */
  readFromCopy(node: ProxyNode | undefined, user: string, id: string): Promise<Seen> {
    return until(
      `a copy answers ${user}`,
      async () => {
        const seen = await this.ask(node, user, `/appointments/${id}`);
        return seen.store === 'app' && seen;
      },
      30_000,
    );
  }
}

export function titleOf(seen: Seen): unknown {
  return (seen.body as { readonly title?: unknown } | undefined)?.title;
}
