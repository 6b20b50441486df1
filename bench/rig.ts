/** One onewriter proxy before one store, for measurements of it alone; everything is ended afterwards. */
import { type Child, startScript } from './child.ts';
import { type Deployment, openDeployment } from './deployment.ts';

/** A busy machine takes its time for a gibibyte. */
const writeTimeoutMs = 300_000;

export interface Rig {
  readonly deployment: Deployment;
  readonly port: number;
  readonly pid: number;
}

export interface RigOptions {
  /** The script in this folder that is the store. */
  readonly store?: string;
  /** That the ledger lists. */
  readonly partitions: number;
  /** More of the configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
}

export async function withProxy<Result>(
  { store = 'upstream.ts', partitions, config = {} }: RigOptions,
  work: (rig: Rig) => Promise<Result>,
): Promise<Result> {
  let upstream: Child | undefined;
  let deployment: Deployment | undefined;
  try {
    upstream = await startScript(store, [], /(\d+)\n/);
    deployment = await openDeployment(partitions);
    const url = `http://127.0.0.1:${upstream.said}`;
    const proxy = await deployment.startProxy({
      identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
      // Guarded, so that every request carries signed headers; the path only makes them two stores.
      stores: { legacy: { url, guard: true, writeTimeoutMs }, app: { url: `${url}/app`, writeTimeoutMs } },
      ...config,
    });
    return await work({ deployment, port: Number(new URL(proxy.url).port), pid: proxy.pid });
  } finally {
    await deployment?.stop();
    await upstream?.stop();
  }
}
