/**
 * Connections to a store, the same for users' requests and for calls of our own. Over TLS the certificate is
 * always verified, and always against the name that the configuration says: never against one that a request
 * brought along as its Host.
 */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import { createSecureContext, type SecureVersion } from 'node:tls';
import { buildConnector } from 'undici';
import type { Config } from '../config/schema.ts';
import type { StoreName } from '../core/ownership.ts';

export interface StoreTls {
  /** Stands against NODE_TLS_REJECT_UNAUTHORIZED, too. */
  readonly rejectUnauthorized: true;
  /** Empty where the store is addressed by its IP address, which the certificate must have then. */
  readonly servername: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly minVersion?: SecureVersion;
}

/** The connection was opened, and no agreement on TLS was reached: nothing was sent over it. */
export class TlsFailure extends Error {
  /** Short and without content, for example CERT_HAS_EXPIRED. */
  readonly reason: string;

  constructor(cause: Error & { readonly code?: unknown }) {
    super(`TLS failed: ${cause.message}`, { cause });
    this.reason = typeof cause.code === 'string' ? cause.code : 'TLS';
  }
}

/** Reads the files of `stores.<name>.tls`. Throws, naming the setting, where one cannot be used. */
export function storeTlsOf(name: StoreName, { stores }: Pick<Config, 'stores'>): StoreTls | undefined {
  const { url, tls = {} } = stores[name];
  const { protocol, hostname } = new URL(url);
  if (protocol !== 'https:') return undefined;
  const place = `stores.${name}.tls`;
  const host = hostname.replace(/^\[|\]$/g, '');
  const [ca, cert, key] = (['ca', 'cert', 'key'] as const).map((part) => {
    const file = tls[part];
    return file === undefined ? undefined : readPem(`${place}.${part}`, file);
  });
  if (ca !== undefined) mustBeCertificates(`${place}.ca`, ca);
  const trust = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(tls.minVersion === undefined ? {} : { minVersion: tls.minVersion }),
  };
  mustFit(place, trust);
  const servername = tls.servername ?? (isIP(host) === 0 ? host : '');
  return { rejectUnauthorized: true, servername, ...trust };
}

export function readPem(setting: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Error(`The file of ${setting}, ${file}, cannot be read (${code})`, { cause: error });
  }
}

/** Throws where the key does not belong to the certificate, or one of them is none. */
export function mustFit(
  setting: string,
  parts: { readonly cert?: string; readonly key?: string; readonly minVersion?: SecureVersion },
): void {
  try {
    createSecureContext(parts);
  } catch (error) {
    throw new Error(`The files of ${setting} cannot be used (${(error as Error).message})`, { cause: error });
  }
}

/** Without this a file of anything else would be taken for an empty list of authorities. */
function mustBeCertificates(setting: string, pem: string): void {
  try {
    void new X509Certificate(pem);
  } catch (error) {
    throw new Error(`The file of ${setting} holds no PEM certificate`, { cause: error });
  }
}

/** For undici. What fails after the connection was opened and before TLS was agreed on is a TlsFailure. */
export function storeConnector(
  connectTimeoutMs: number,
  tls: StoreTls | undefined,
): buildConnector.connector {
  // Its declared result is void, but it gives the socket that it opens.
  const connect = buildConnector({ timeout: connectTimeoutMs, allowH2: false, ...tls }) as (
    ...given: Parameters<buildConnector.connector>
  ) => Socket;
  return (options, callback) => {
    // A name given here would be that of the request's Host, which undici would connect to and believe.
    const { servername: _, ...address } = options;
    if (tls === undefined) {
      connect(address, callback);
      return;
    }
    // In two steps, so that the connection below can be reset.
    connect({ ...address, protocol: 'http:', port: address.port || '443' }, (...[refused, below]) => {
      if (refused !== null) {
        callback(refused, null);
        return;
      }
      connect({ ...address, httpSocket: below }, (...[error, secured]) => {
        if (error !== null) {
          below.destroy();
          callback(isLate(error) ? error : new TlsFailure(error), null);
          return;
        }
        carriers.set(secured, below);
        callback(null, secured);
      });
    });
  };
}

const carriers = new WeakMap<Socket, Socket>();

/**
 * Ends a connection so that nothing of it is delivered any more that was not yet (RFC 9293, 3.10.5). Ended in
 * order, TLS would go on from the kernel's send buffer, and say at its end that this was all.
 */
export function resetStoreConnection(socket: Socket): void {
  const below = carriers.get(socket);
  if (below === undefined) {
    socket.resetAndDestroy();
    return;
  }
  below.resetAndDestroy();
  socket.destroy();
}

function isLate(error: Error & { readonly code?: unknown }): boolean {
  return error.code === 'UND_ERR_CONNECT_TIMEOUT' || error.code === 'ETIMEDOUT';
}
