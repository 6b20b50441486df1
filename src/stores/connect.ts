/**
 * Connections to a store, the same for users' requests and for calls of our own. Over TLS the certificate is
 * always verified, and always against the name that the configuration says: never against one that a request
 * brought along as its Host.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext, type SecureVersion, type TLSSocket } from 'node:tls';
import type { buildConnector } from 'undici';
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
  mustFit(place, trust, tls);
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

interface CertificateAndKey {
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** Throws where the key does not belong to the certificate, or one of them is none; names the file. */
export function mustFit(
  setting: string,
  parts: CertificateAndKey & { readonly minVersion?: SecureVersion },
  files: CertificateAndKey,
): void {
  try {
    createSecureContext(parts);
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`${whatIsWrong(setting, parts, files)} (${message})`, { cause: error });
  }
}

function whatIsWrong(setting: string, { cert, key }: CertificateAndKey, files: CertificateAndKey): string {
  const certificate = cert === undefined ? undefined : attempt(() => new X509Certificate(cert));
  const own = key === undefined ? undefined : attempt(() => createPrivateKey(key));
  if (cert !== undefined && certificate === undefined) {
    return `The file of ${setting}.cert, ${files.cert}, holds no PEM certificate`;
  }
  if (key !== undefined && own === undefined) {
    return `The file of ${setting}.key, ${files.key}, holds no private key that can be read without a password`;
  }
  if (certificate !== undefined && own !== undefined && !certificate.checkPrivateKey(own)) {
    return `The key of ${setting}.key, ${files.key}, does not belong to the certificate of ${setting}.cert, ${files.cert}`;
  }
  return `The files of ${setting} cannot be used`;
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
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

export interface StoreAddress {
  /** Scheme, host and port. */
  readonly origin: string;
  /** For an https origin. */
  readonly tls?: StoreTls | undefined;
  /** Until TLS is agreed on, where it is spoken. */
  readonly connectTimeoutMs: number;
}

/** Nobody answered in time, or TLS was not agreed on in time: nothing was sent. */
export class ConnectTimeout extends Error {}

/** A fault is a ConnectTimeout, a TlsFailure, or why the connection was refused. */
export type Opened = (socket: Socket | undefined, fault: Error | undefined) => void;

/** Gets what a store sends. `lasting`: the bytes stay as they are; else only until the call returns. */
export type Taker = (bytes: Buffer, lasting: boolean) => void;

/** Opens a connection, and calls back once, later. Returns the way out: then it never calls back. */
export type StoreDial = (opened: Opened, take?: Taker) => () => void;

export function storeDialer({ origin, tls, connectTimeoutMs }: StoreAddress): StoreDial {
  const { hostname, port, protocol } = new URL(origin);
  const host = hostname.replace(/^\[|\]$/g, '');
  const address = {
    ...{ host, port: Number(port === '' ? (protocol === 'https:' ? 443 : 80) : port) },
    ...{ noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 },
  };
  let session: Buffer | undefined;
  const secure = (below: Socket, trust: StoreTls): TLSSocket => {
    const resumed = session === undefined ? {} : { session };
    const socket = connectTls({ host, ...trust, ...resumed, socket: below, ALPNProtocols: ['http/1.1'] });
    socket.on('session', (given) => (session = given));
    carriers.set(socket, below);
    return socket;
  };
  return (opened, take) => {
    const shared = take !== undefined && tls === undefined && mayShareBuffer;
    let buffer = sharedBuffer;
    const onread = {
      buffer: () => buffer,
      callback: (bytes: number) => {
        const read = buffer.subarray(0, bytes);
        const lasting = buffer !== sharedBuffer && bytes >= muchBytes;
        // Where much comes, the next goes into memory of its own: then nobody has to copy it.
        buffer = bytes < muchBytes ? sharedBuffer : Buffer.allocUnsafeSlow(bufferBytes);
        take?.(read, lasting);
        return true;
      },
    };
    const below = connect(shared ? { ...address, onread } : address);
    let socket = below;
    let waiting = true;
    const settle = (fault?: Error): void => {
      if (!waiting) return;
      waiting = false;
      clearTimeout(late);
      if (fault === undefined) {
        if (take !== undefined && !shared) socket.on('data', (bytes: Buffer) => take(bytes, true));
        opened(socket, undefined);
      } else {
        socket.destroy();
        below.destroy();
        opened(undefined, fault);
      }
    };
    const late = setTimeout(
      () => settle(new ConnectTimeout(`no connection within ${connectTimeoutMs} ms`)),
      connectTimeoutMs,
    );
    below.on('error', (error) => settle(isLate(error) ? new ConnectTimeout(error.message) : error));
    below.once('connect', () => {
      if (tls === undefined) {
        settle();
        return;
      }
      socket = secure(below, tls);
      socket.on('error', (error) => settle(isLate(error) ? error : new TlsFailure(error)));
      socket.once('secureConnect', () => settle());
    });
    return () => {
      waiting = false;
      clearTimeout(late);
      socket.destroy();
      below.destroy();
    };
  };
}

/**
 * Reading allocates nothing where all connections read into the same memory: the bytes are taken, or copied, before
 * the next one reads. On Windows reads are under way together.
 */
const mayShareBuffer = process.platform !== 'win32';
const bufferBytes = 65_536;
const muchBytes = 32_768;
const sharedBuffer = Buffer.allocUnsafeSlow(bufferBytes);

/** The same for undici. */
export function storeConnector(
  origin: string,
  connectTimeoutMs: number,
  tls: StoreTls | undefined,
): buildConnector.connector {
  const dial = storeDialer({ origin, tls, connectTimeoutMs });
  return (_options, callback) => {
    dial((socket, fault) => {
      if (socket === undefined) callback(fault ?? new Error('not connected'), null);
      else callback(null, socket);
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
  const all = error instanceof AggregateError ? [error, ...(error.errors as unknown[])] : [error];
  return all.some((one) => one instanceof Error && 'code' in one && one.code === 'ETIMEDOUT');
}
