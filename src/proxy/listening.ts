/** The beginning and the end of a server that listens: the same for a proxy that enforces and one that observes. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { within } from '../pause.ts';

const idleLookMs = 20;

/** Resolves with the address that it got; rejects where it cannot be had. */
export async function listenOn(
  server: Server,
  at: { readonly host: string; readonly port: number },
): Promise<{ host: string; port: number }> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: at.host, port: at.port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const address = server.address() as AddressInfo;
  return { host: address.address, port: address.port };
}

/** Takes no new connection, from the call on; true when those that are open have ended in time. */
export async function closedWithin(server: Server, timeoutMs: number): Promise<boolean> {
  if (!server.listening) return true;
  const closed = new Promise<true>((resolve) => server.close(() => resolve(true)));
  // A connection whose last answer began before stays open after it.
  const idle = setInterval(() => server.closeIdleConnections(), idleLookMs);
  const inTime = await within(closed, timeoutMs);
  clearInterval(idle);
  return inTime ?? false;
}
