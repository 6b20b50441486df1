/** What the processes of the example share about sockets, secrets and chance. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';

export interface Listening {
  /** http://127.0.0.1:PORT */
  readonly url: string;
  close(): Promise<void>;
}

/** One answer: JSON or HTML, with further headers. */
export interface Reply {
  readonly status: number;
  readonly json?: unknown;
  readonly html?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Listens on 127.0.0.1; port 0 takes a free one. Closing breaks open connections. */
export async function listen(server: Server, port: number): Promise<Listening> {
  server.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Did this request come from this machine, and not through a proxy? */
export function isDirectLocal(request: IncomingMessage): boolean {
  const { remoteAddress } = request.socket;
  const local = remoteAddress === '127.0.0.1' || remoteAddress === '::ffff:127.0.0.1';
  const { headers } = request;
  return local && headers['x-forwarded-for'] === undefined && headers['onewriter-signature'] === undefined;
}

/** In constant time, also for secrets of different length. */
export function secretsEqual(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** Repeatable chance, 0 up to 1, from a seed (mulberry32 by Tommy Ettinger, public domain). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
