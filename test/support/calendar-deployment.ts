/** The calendar example as one deployment: platform, application, proxy, admin API and copies, on real sockets. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startApp } from '../../examples/calendar/app.ts';
import { startPlatform } from '../../examples/calendar/platform.ts';
import type { Appointment } from '../../examples/calendar/appointment.ts';
import { startRole } from '../../src/compose.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/schema.ts';
import type { FlipStatus } from '../../src/core/flip.ts';
import { ask, type CalendarAnswer, calendarSecret } from './calendar.ts';
import { startRedis } from './redis.ts';
import { until } from './until.ts';

export type StoreEvidence = 'legacy' | 'app';

export interface CalendarDeployment {
  readonly proxyUrl: string;
  readonly adminUrl: string;
  /** As an operator; `path` below /v1. */
  order(method: 'GET' | 'POST', path: string, body?: unknown): Promise<CalendarAnswer>;
  /** Orders a flip or a rollback, and waits for its end. */
  carryOut(path: '/flips' | '/rollbacks', body: Record<string, unknown>): Promise<FlipStatus>;
  ended(id: string): Promise<FlipStatus>;
  /** As the user, through the proxy. */
  write(user: string, body: Record<string, unknown>): Promise<CalendarAnswer>;
  /** What the store holds of one user, asked directly. */
  held(store: StoreEvidence, user: string): Promise<Appointment[]>;
  /** `phase owner epoch` of the user's partition. */
  whereIs(user: string): Promise<string>;
  stop(): Promise<void>;
}

export async function startCalendar(options: {
  readonly databaseUrl?: string | undefined;
  /** File of the configuration; left out: the example's own. */
  readonly config?: string;
  readonly users: number;
  readonly cohorts: Config['cohorts'];
}): Promise<CalendarDeployment> {
  const stops: (() => unknown)[] = [];
  const stop = async (): Promise<void> => {
    for (const end of stops.splice(0).toReversed()) await end();
  };
  try {
    return await startAll(options, stops, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startAll(
  options: Parameters<typeof startCalendar>[0],
  stops: (() => unknown)[],
  stop: () => Promise<void>,
): Promise<CalendarDeployment> {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-calendar-'));
  stops.push(() => rmSync(directory, { recursive: true }));
  const redis = await startRedis();
  stops.push(() => redis.stop());
  const platform = await startPlatform({ users: options.users, token: 'platform-token' });
  stops.push(() => platform.close());
  const app = await startApp({ secret: calendarSecret, databaseUrl: options.databaseUrl });
  stops.push(() => app.close());
  const token = 'operator-token-1';
  const env = {
    ...{ PROXY_PORT: '0', ADMIN_PORT: '0', OPS_TOKEN: token, ONEWRITER_SECRET: calendarSecret },
    ...{ LEGACY_URL: platform.url, APP_URL: app.url, LEGACY_TOKEN: 'platform-token' },
    ...(options.databaseUrl === undefined ? {} : { APP_DATABASE_URL: options.databaseUrl }),
    ...{ REDIS_URL: redis.url, ONEWRITER_DATA_DIR: directory, LEASE_MS: '3000', SETTLE_MS: '200' },
  };
  const loaded = loadConfig({ path: options.config ?? 'examples/calendar/onewriter.yaml', env });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const config: Config = { ...loaded.config, cohorts: options.cohorts };
  const running = await startRole('up', { config, configHash: loaded.hash, env, log: () => undefined });
  stops.push(() => running.stop());
  const { proxy: proxyUrl = '', admin: adminUrl = '' } = running.addresses;
  const deployment: CalendarDeployment = {
    ...{ proxyUrl, adminUrl },
    order: (method, path, body) =>
      ask(adminUrl, { method, path: `/v1${path}`, body, headers: { authorization: `Bearer ${token}` } }),
    carryOut: async (path, body) => {
      const started = await deployment.order('POST', path, { reason: 'test', ...body });
      if (started.status !== 202) throw new Error(JSON.stringify(started.body));
      return deployment.ended(String(started.body['id']));
    },
    ended: (id) =>
      until(
        'the flip ends',
        async () => {
          const flip = (await deployment.order('GET', `/flips/${id}`)).body as unknown as FlipStatus;
          return ['completed', 'failed', 'aborted'].includes(flip.state) && flip;
        },
        60_000,
      ),
    write: (user, body) =>
      ask(proxyUrl, { method: 'POST', path: '/api/appointments', body, headers: { 'x-user': user } }),
    held: async (store, user) => {
      const { body } = await ask((store === 'legacy' ? platform : app).url, { path: '/_dump' });
      const all = body as unknown as Appointment[];
      return all.filter((appointment) => appointment.owner_id === user && appointment.deleted_at === null);
    },
    whereIs: async (user) => {
      const { body } = await deployment.order('GET', `/partitions/${user}`);
      return `${String(body['phase'])} ${String(body['owner'])} ${String(body['epoch'])}`;
    },
    stop,
  };
  return deployment;
}
