/** One store reached over HTTP: its reader, its guard's client, and the maker of its writer. */
import type { AuthConfig } from '../../config/rest-auth.ts';
import type { Config, RestConnectorConfig } from '../../config/schema.ts';
import type { StoreName } from '../../core/ownership.ts';
import type { CopyWriter, GuardCalls, RecordRemover, StoreReader } from '../../core/ports.ts';
import type { CallBudget } from '../budget.ts';
import { storeTlsOf } from '../connect.ts';
import { RestClient } from './client.ts';
import { credentialsOf } from './credentials.ts';
import { type FreezeCalls, freezeCalls } from './freeze-calls.ts';
import { RestGuardCalls } from './guard-calls.ts';
import { RestReader, type RecordConfigs } from './reader.ts';
import { RestWriter } from './writer.ts';

export interface RestStore {
  readonly store: StoreName;
  readonly reader: StoreReader;
  /** The same, for reads under a fence, which were paid for before it began. */
  readonly prepaidReader: StoreReader;
  readonly client: RestClient;
  readonly guard: GuardCalls;
  readonly budget: CallBudget;
  /** Longest that one call can take once it is sent, ms. */
  readonly timeoutMs: number;
  /** Where the connector says how a partition's right to write is taken away; with the longest that all calls take, ms. */
  readonly freezes?: { readonly calls: FreezeCalls; readonly longestMs: number } | undefined;
  /** Called only for stores that copies may go to (src/sync/writers.ts). */
  makeWriter(): CopyWriter;
  /** Called only for erasures (src/sync/erase.ts). */
  makeRemover(): RecordRemover;
}

const defaultTimeoutMs = 10_000;

/** A store without a connector has no kinds of records: it can be guarded, but nothing of it can be copied. */
export function createRestStore(store: StoreName, config: Config, budget: CallBudget): RestStore {
  const settings = config.stores[store];
  const connector = restConnectorOf(settings.connector);
  const records = (connector?.records ?? {}) as RecordConfigs;
  const timeoutMs = connector?.timeoutMs ?? defaultTimeoutMs;
  const tls = storeTlsOf(store, config);
  const { connectTimeoutMs } = settings;
  const { origin } = new URL(settings.url);
  const credentials = (auth: AuthConfig | undefined) =>
    auth && credentialsOf(auth, { store, origin, tls, connectTimeoutMs });
  const client = new RestClient({
    store,
    url: settings.url,
    headers: { ...hostHeader(settings.host), ...connector?.headers },
    credentials: credentials(connector?.auth),
    writeCredentials: credentials(connector?.write?.auth),
    error: connector?.error,
    ...{ tls, timeoutMs, connectTimeoutMs },
    guardSecret: settings.guard ? config.secret : undefined,
    budget,
  });
  const feedDelayMs = connector?.feedDelayMs ?? 0;
  const makeWriter = (): RestWriter => new RestWriter(client, records, connector?.write?.headers);
  return {
    store,
    reader: new RestReader(client, records, feedDelayMs),
    prepaidReader: new RestReader(client, records, feedDelayMs, { prepaid: true }),
    client,
    guard: new RestGuardCalls(new Map([[store, client]])),
    budget,
    timeoutMs,
    freezes: connector && freezesOf(client, budget, connector),
    makeWriter,
    makeRemover: () => {
      const writer = makeWriter();
      return {
        remove: (key, stamp, signal) => writer.remove(key, stamp, signal),
        can: (kind) => records[kind]?.delete !== undefined,
      };
    },
  };
}

function freezesOf(
  client: RestClient,
  budget: CallBudget,
  connector: RestConnectorConfig,
): RestStore['freezes'] {
  const calls = freezeCalls({ client, budget, connector });
  const { freeze = [], unfreeze = [], timeoutMs } = connector;
  return calls && { calls, longestMs: Math.max(freeze.length, unfreeze.length) * timeoutMs };
}

/** Behind one address the name decides which store is meant; there is no client whose name could be preserved. */
function hostHeader(host: string): Record<string, string> {
  return host === 'store' || host === 'preserve' ? {} : { host };
}

export function restConnectorOf(connector: unknown): RestConnectorConfig | undefined {
  const isRest =
    typeof connector === 'object' && connector !== null && 'kind' in connector && connector.kind === 'rest';
  return isRest ? (connector as RestConnectorConfig) : undefined;
}
