/** Opens a store through the connector that its configuration names: the one place that knows all kinds of them. */
import type { Config, PostgresConnectorConfig } from '../config/schema.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import {
  type CopyWriter,
  type GuardCalls,
  type RecordKey,
  type RecordRemover,
  StoreFailure,
  type StoreReader,
} from '../core/ports.ts';
import type { CallBudget } from './budget.ts';
import { openPostgresStore } from './postgres/store.ts';
import type { RestClient } from './rest/client.ts';
import { createRestStore, type RestStore } from './rest/store.ts';

export interface OpenStore {
  readonly store: StoreName;
  readonly reader: StoreReader;
  /** The same, for reads under a fence, which were paid for before it began. */
  readonly prepaidReader: StoreReader;
  readonly budget: CallBudget;
  /** Longest that one call can take once it is sent, ms. */
  readonly timeoutMs: number;
  /** Calls to its guard, whether it is configured to have one or not. */
  readonly guard: GuardCalls;
  /** Called only for stores that copies may go to (src/sync/writers.ts). */
  makeWriter(): CopyWriter;
  /** Called only for erasures (src/sync/erase.ts). */
  makeRemover(): RecordRemover;
  /** Of a store that is reached over HTTP. */
  readonly client?: RestClient;
  /** Of one whose connector says how a partition's right to write is taken away. */
  readonly freezes?: RestStore['freezes'];
  /** Where the store itself tells of changes while somebody listens. */
  listen?(hears: ChangeHearer): ChangeListener;
  /** What a person should know of the way to its records, for `doctor`; reads only. */
  examine?(signal: AbortSignal): Promise<readonly Examined[]>;
}

/** Nothing rests on what is heard: it is a hint to look. */
export interface ChangeHearer {
  readonly onNotice: (record: RecordKey) => void;
  /** Something may have been missed. */
  readonly onGap: () => void;
  readonly onLost: (detail: string) => void;
}

export interface ChangeListener {
  start(): void;
  stop(): Promise<void>;
}

export interface Examined {
  readonly level: 'ok' | 'warn' | 'fail';
  /** A kind of records, or what else was looked at. */
  readonly about: string;
  readonly detail: string;
  /** What to do; empty where nothing is. */
  readonly advice: string;
}

export function openStore(store: StoreName, config: Config, budget: CallBudget): OpenStore {
  const { connector } = config.stores[store];
  if (connector?.kind === 'postgres') {
    return openPostgresStore(store, connector as PostgresConnectorConfig, config.stores[store]);
  }
  return createRestStore(store, config, budget);
}

/** The guards of the stores that are configured to have one; a call for another store is refused. */
export function guardCallsOf(
  stores: Readonly<Record<StoreName, Pick<OpenStore, 'guard'>>>,
  config: Pick<Config, 'stores'>,
): GuardCalls {
  const guarded = new Set(storeNames.filter((store) => config.stores[store].guard));
  const of = (store: StoreName): GuardCalls => {
    if (guarded.has(store)) return stores[store].guard;
    throw new StoreFailure('rejected', `${store} is configured without a guard`);
  };
  return {
    verdict: async (store, ...asked) => of(store).verdict(store, ...asked),
    advance: async (store, ...asked) => of(store).advance(store, ...asked),
    seal: async (store, ...asked) => of(store).seal(store, ...asked),
  };
}
