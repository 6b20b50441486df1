/**
 * Connections to one database. Every query is bounded in time on both sides, so that nothing which was given up here
 * goes on there for long: a worker that stands still loses its transaction, and with it the guard's row.
 */
import { isIP } from 'node:net';
import { checkServerIdentity, type ConnectionOptions } from 'node:tls';
import { type ClientConfig, Pool, type PoolClient } from 'pg';
import type { PostgresConnectorConfig } from '../../config/schema.ts';
import type { StoreName } from '../../core/ownership.ts';
import { StoreFailure } from '../../core/ports.ts';
import { readPem } from '../connect.ts';
import { failureOf } from './failures.ts';

export type Row = Readonly<Record<string, unknown>>;
export type Query = (sql: string, parameters?: readonly unknown[]) => Promise<readonly Row[]>;

/** The same answers, whatever server, role and database have set; hidden rows are an error, not an empty list. */
const session = [
  ...['TimeZone=UTC', 'DateStyle=ISO', 'IntervalStyle=iso_8601', 'bytea_output=hex', 'extra_float_digits=1'],
  ...['row_security=off', 'standard_conforming_strings=on', 'default_transaction_isolation=read\\ committed'],
];

export interface DatabaseAddress {
  readonly host: string;
  readonly port: number;
  readonly database: string;
}

type Settings = Pick<
  PostgresConnectorConfig,
  'url' | 'host' | 'port' | 'user' | 'password' | 'database' | 'connectTimeoutMs' | 'timeoutMs'
> & { readonly tls?: PostgresConnectorConfig['tls'] };

/** Throws, naming the setting, where a file of `tls` cannot be read. */
export function clientConfigOf(store: StoreName, settings: Settings): ClientConfig & DatabaseAddress {
  const { host, port, user, password, database } =
    settings.url === undefined ? settings : partsOf(settings.url);
  const ssl = tlsOf(`stores.${store}.connector.tls`, settings.tls, host ?? '');
  return {
    ...{ host: host ?? 'localhost', port: port ?? 5432, database: database ?? user ?? 'postgres' },
    ...(user === undefined ? {} : { user }),
    ...(password === undefined ? {} : { password }),
    // Without this a PGSSLMODE of the environment would count.
    ssl: ssl ?? false,
    application_name: 'onewriter',
    keepAlive: true,
    connectionTimeoutMillis: settings.connectTimeoutMs,
    statement_timeout: settings.timeoutMs,
    idle_in_transaction_session_timeout: settings.timeoutMs,
    options: session.map((one) => `-c ${one}`).join(' '),
  };
}

function partsOf(text: string): Pick<Settings, 'host' | 'port' | 'user' | 'password' | 'database'> {
  const url = new URL(text);
  const decoded = (part: string): string | undefined => (part === '' ? undefined : decodeURIComponent(part));
  return {
    host: decoded(url.hostname)?.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? undefined : Number(url.port),
    user: decoded(url.username),
    password: decoded(url.password),
    database: decoded(url.pathname.slice(1)),
  };
}

function tlsOf(place: string, tls: Settings['tls'], host: string): ConnectionOptions | undefined {
  if (tls === undefined) return undefined;
  const [ca, cert, key] = (['ca', 'cert', 'key'] as const).map((part) => {
    const file = tls[part];
    return file === undefined ? undefined : readPem(`${place}.${part}`, file);
  });
  const expected = tls.servername ?? host;
  return {
    // Stands against NODE_TLS_REJECT_UNAUTHORIZED, too.
    rejectUnauthorized: true,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(isIP(expected) === 0 ? { servername: expected } : {}),
    checkServerIdentity: (_host, certificate) => checkServerIdentity(expected, certificate),
  };
}

export class Database {
  readonly store: StoreName;
  readonly timeoutMs: number;
  /** Host, port and database, for messages. */
  readonly place: string;
  readonly #pool: Pool;

  constructor(store: StoreName, settings: Settings, connections: number) {
    const config = clientConfigOf(store, settings);
    this.store = store;
    this.timeoutMs = settings.timeoutMs;
    this.place = `${config.host}:${config.port}/${config.database}`;
    this.#pool = new Pool({ ...config, max: connections, idleTimeoutMillis: 30_000, allowExitOnIdle: true });
    this.#pool.on('error', () => undefined); // an idle connection was lost; the next query opens another one
  }

  /** One query by itself. Throws StoreFailure, and the signal's reason when that ends first. */
  async query(sql: string, parameters: readonly unknown[], signal: AbortSignal): Promise<readonly Row[]> {
    try {
      return await this.#with(`asked for records (${this.place})`, (query) => query(sql, parameters), signal);
    } catch (error) {
      if (!(error instanceof StoreFailure) || error.kind !== 'rejected') throw error;
      // No record is to blame for what is only read.
      throw new StoreFailure('bad-answer', error.message, { cause: error.cause }).of(this.store);
    }
  }

  /**
   * All or nothing. Throws StoreFailure: `unavailable` where nobody can tell whether it was committed, any other kind
   * where nothing was. Runs to its end or its timeout once it has begun, because its outcome is wanted.
   */
  transact<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.#with(`asked to write (${this.place})`, async (query, client) => {
      await query('BEGIN');
      let result: T;
      try {
        result = await work(query);
      } catch (error) {
        await query('ROLLBACK').catch(() => undefined); // the connection is lost, and the transaction with it
        throw error;
      }
      const { command } = await client.query('COMMIT');
      // PostgreSQL answers so where the transaction had failed before.
      if (command !== 'COMMIT') throw new StoreFailure('rejected', `${this.store} rolled the write back`);
      return result;
    });
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  async #with<T>(
    what: string,
    work: (query: Query, client: PoolClient) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    signal?.throwIfAborted();
    let client: PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (error) {
      throw failureOf(this.store, what, error);
    }
    const lost = (): void => undefined; // the query under way says so
    client.on('error', lost);
    const query: Query = async (sql, parameters = []) => (await client.query<Row>(sql, [...parameters])).rows;
    let broken = true;
    const ended = endOf(this.timeoutMs, signal);
    try {
      const result = await Promise.race([work(query, client), ended.rejection]);
      broken = false;
      return result;
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason;
      // The server has answered, so the connection is as good as before.
      broken = !isAnswer(error) || error instanceof TookTooLong;
      throw failureOf(this.store, what, error);
    } finally {
      ended.clear();
      client.removeListener('error', lost);
      client.release(broken);
    }
  }
}

class TookTooLong extends Error {}

/** A refusal of the server, or a finding of ours between two answers of it. */
function isAnswer(error: unknown): boolean {
  return error instanceof StoreFailure || (error as { severity?: unknown } | undefined)?.severity === 'ERROR';
}

function endOf(
  timeoutMs: number,
  signal: AbortSignal | undefined,
): { readonly rejection: Promise<never>; clear(): void } {
  let clear = (): void => undefined;
  const rejection = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => reject(new TookTooLong(`no answer within ${timeoutMs} ms`)), timeoutMs);
    const onAbort = (): void => reject(signal?.reason as Error);
    signal?.addEventListener('abort', onAbort, { once: true });
    clear = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
  });
  return { rejection, clear };
}
