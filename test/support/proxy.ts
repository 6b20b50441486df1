/** A proxy between raw clients and two raw stores, with a gate that the test drives. */
import { configSchema, type Config } from '../../src/config/schema.ts';
import type { CopyReads } from '../../src/core/copy-reads.ts';
import type { ProxyDoubt } from '../../src/core/doubt.ts';
import type { IdempotencyKeys } from '../../src/core/idempotency.ts';
import type { LinkNotes } from '../../src/core/links.ts';
import type { TlsOptions } from 'node:tls';
import type { RecordKey } from '../../src/core/ports.ts';
import type { Hooks } from '../../src/proxy/hook.ts';
import { createProxy, type Proxy } from '../../src/proxy/proxy.ts';
import { createTestGate, type TestGate } from './gate.ts';
import { type RawAnswer, RawUpstream } from './raw-http.ts';

export interface ProxyRig {
  readonly proxy: Proxy;
  readonly port: number;
  readonly gate: TestGate;
  readonly legacy: RawUpstream;
  readonly app: RawUpstream;
  readonly rung: RecordKey[];
  /** Writes whose outcome the proxy does not know. */
  readonly doubted: ProxyDoubt[];
  readonly logged: { readonly event: string; readonly fields: Record<string, unknown> }[];
  stop(): Promise<void>;
}

export const rigSecret = 'a-secret-of-the-test-rig';

export function configOf(changes: Record<string, unknown> = {}): Config {
  return configSchema.parse({
    secret: rigSecret,
    proxy: { port: 0 },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: { legacy: { url: 'http://127.0.0.1:1' }, app: { url: 'http://127.0.0.1:1' } },
    ...changes,
  });
}

export async function startRig(
  options: {
    readonly config?: Record<string, unknown>;
    readonly legacy?: Record<string, unknown>;
    readonly app?: Record<string, unknown>;
    readonly answer?: RawAnswer;
    /** Path in the URL of both stores. */
    readonly prefix?: string;
    /** The stores speak TLS with it. */
    readonly tls?: TlsOptions;
    readonly limits?: Partial<Config['proxy']['limits']>;
    readonly certificateLookMs?: number;
    readonly keys?: IdempotencyKeys;
    /** Their stores need `hook` in the configuration, too. */
    readonly hooks?: Hooks;
    readonly links?: LinkNotes;
    readonly copies?: CopyReads;
  } = {},
): Promise<ProxyRig> {
  const [legacy, app] = await Promise.all([
    RawUpstream.start(options.answer, options.tls),
    RawUpstream.start(options.answer, options.tls),
  ]);
  const gate = createTestGate();
  const rung: RecordKey[] = [];
  const doubted: ProxyDoubt[] = [];
  const logged: ProxyRig['logged'] = [];
  const { limits, certificateLookMs } = options;
  const proxyKeys = (options.config?.['proxy'] as object | undefined) ?? { port: 0 };
  const config = configOf({
    ...options.config,
    proxy: { ...proxyKeys, ...(limits === undefined ? {} : { limits }) },
    stores: {
      legacy: { url: legacy.url + (options.prefix ?? ''), ...options.legacy },
      app: { url: app.url + (options.prefix ?? ''), ...options.app },
    },
  });
  const proxy = await orStop([legacy, app], () =>
    createProxy({
      config,
      gate,
      doubts: { note: (doubt) => void doubted.push(doubt) },
      doorbell: { ring: (record) => void rung.push(record) },
      log: (_level, event, fields = {}) => void logged.push({ event, fields }),
      ...(certificateLookMs === undefined ? {} : { certificateLookMs }),
      ...(options.keys === undefined ? {} : { keys: options.keys }),
      ...(options.hooks === undefined ? {} : { hooks: options.hooks }),
      ...(options.links === undefined ? {} : { links: options.links }),
      ...(options.copies === undefined ? {} : { copies: options.copies }),
    }),
  );
  const { port } = await proxy.listen();
  return {
    proxy,
    port,
    gate,
    legacy,
    app,
    rung,
    doubted,
    logged,
    stop: async () => {
      await proxy.stop();
      await Promise.all([legacy.stop(), app.stop()]);
    },
  };
}

/** A proxy that refuses to start leaves no store behind. */
async function orStop<Made>(stores: readonly RawUpstream[], make: () => Made): Promise<Made> {
  try {
    return make();
  } catch (error) {
    await Promise.all(stores.map((store) => store.stop()));
    throw error;
  }
}
