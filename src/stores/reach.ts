/** Whether a store accepts connections at all: it costs no call of its rate limit, and needs no connector. */
import { connect, isIP } from 'node:net';
import type { Config } from '../config/schema.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';

const usualPorts: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443, 'postgres:': 5432 };

/** Undefined where a TCP connection opens; else why not, in a word. */
export function whyUnreachable(address: string, withinMs: number): Promise<string | undefined> {
  const url = new URL(address);
  const port = url.port === '' ? (usualPorts[url.protocol] ?? 80) : Number(url.port);
  return new Promise((settle) => {
    const socket = connect({ host: url.hostname.replace(/^\[|\]$/g, ''), port, timeout: withinMs });
    const end = (why: string | undefined): void => {
      socket.destroy();
      settle(why);
    };
    socket.once('connect', () => end(undefined));
    socket.once('timeout', () => end(`no connection within ${withinMs} ms`));
    socket.once('error', (error: Error & { code?: string }) => end(error.code ?? error.message));
  });
}

export interface StoreTrouble {
  readonly store: StoreName;
  readonly detail: string;
}

const withinMs = 1_000;
const freshForMs = 2_000;

export interface ReachedStore {
  readonly url: string;
  readonly connector?: Config['stores'][StoreName]['connector'];
}

/** Of users' requests, and of the records where those are reached in another way; without credentials. */
function addressesOf({ url, connector }: ReachedStore): readonly string[] {
  const { origin } = new URL(url);
  if (connector?.kind !== 'postgres') return [origin];
  const { url: given, host, port } = connector;
  const at = given === undefined ? { hostname: host ?? '', port: port ?? '' } : new URL(given);
  // Sockets of the file system are not reached over TCP.
  if (at.hostname === '' || at.hostname.startsWith('/')) return [origin];
  const name = isIP(at.hostname) === 6 ? `[${at.hostname}]` : at.hostname;
  return [origin, `postgres://${name}${at.port === '' ? '' : `:${at.port}`}`];
}

/** Looks at most every two seconds, however often it is asked. */
export function watchReach(
  stores: Readonly<Record<StoreName, ReachedStore>>,
): () => Promise<readonly StoreTrouble[]> {
  let last: { readonly found: Promise<readonly StoreTrouble[]>; readonly atMs: number } | undefined;
  const look = async (): Promise<readonly StoreTrouble[]> => {
    const all = storeNames.flatMap((store) => addressesOf(stores[store]).map((at) => ({ store, at })));
    const found = all.map(async ({ store, at }): Promise<StoreTrouble[]> => {
      const why = await whyUnreachable(at, withinMs);
      return why === undefined ? [] : [{ store, detail: `${at} cannot be reached (${why})` }];
    });
    return (await Promise.all(found)).flat();
  };
  return () => {
    const nowMs = performance.now();
    if (last === undefined || nowMs - last.atMs > freshForMs) last = { found: look(), atMs: nowMs };
    return last.found;
  };
}
