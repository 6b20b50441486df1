/** Whether a store accepts connections at all: it costs no call of its rate limit, and needs no connector. */
import { connect } from 'node:net';
import { type StoreName, storeNames } from '../core/ownership.ts';

/** Undefined where a TCP connection opens; else why not, in a word. */
export function whyUnreachable(address: string, withinMs: number): Promise<string | undefined> {
  const url = new URL(address);
  const port = url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port);
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

/** Looks at most every two seconds, however often it is asked. */
export function watchReach(
  stores: Readonly<Record<StoreName, { readonly url: string }>>,
): () => Promise<readonly StoreTrouble[]> {
  let last: { readonly found: Promise<readonly StoreTrouble[]>; readonly atMs: number } | undefined;
  const look = async (): Promise<readonly StoreTrouble[]> => {
    const found = storeNames.map(async (store): Promise<StoreTrouble[]> => {
      const { origin } = new URL(stores[store].url);
      const why = await whyUnreachable(origin, withinMs);
      return why === undefined ? [] : [{ store, detail: `${origin} cannot be reached (${why})` }];
    });
    return (await Promise.all(found)).flat();
  };
  return () => {
    const nowMs = performance.now();
    if (last === undefined || nowMs - last.atMs > freshForMs) last = { found: look(), atMs: nowMs };
    return last.found;
  };
}
