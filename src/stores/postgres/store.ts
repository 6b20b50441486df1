/** One store reached in its PostgreSQL database: its reader, its guard, its doorbell, and the maker of its writer. */
import type { Config, PostgresConnectorConfig } from '../../config/schema.ts';
import type { StoreName } from '../../core/ownership.ts';
import { unlimited } from '../budget.ts';
import type { OpenStore } from '../open.ts';
import { clientConfigOf, Database } from './database.ts';
import { examine } from './examine.ts';
import { PostgresGuardCalls } from './guard-calls.ts';
import { Notices } from './notices.ts';
import { PostgresReader } from './reader.ts';
import { Tables } from './tables.ts';
import { PostgresWriter } from './writer.ts';

/** Orders to the guard wait for nobody's copies. */
const guardConnections = 4;

/** Connects when it is first asked. Throws, naming the setting, where a file of `tls` cannot be read. */
export function openPostgresStore(
  store: StoreName,
  connector: PostgresConnectorConfig,
  { guard }: Pick<Config['stores'][StoreName], 'guard'>,
): OpenStore {
  const database = new Database(store, connector, connector.poolSize);
  const orders = new Database(store, connector, guardConnections);
  const tables = new Tables(database, connector.records);
  const reader = new PostgresReader(tables, connector.feedDelayMs, () => orders.close());
  const { notify } = connector;
  return {
    ...{ store, reader, prepaidReader: reader, budget: unlimited, timeoutMs: connector.timeoutMs },
    guard: new PostgresGuardCalls(orders),
    makeWriter: () => new PostgresWriter(tables, guard),
    makeRemover: () => new PostgresWriter(tables, guard).remover(),
    ...(notify === undefined
      ? {}
      : {
          listen: (hears) => {
            const client = clientConfigOf(store, connector);
            return new Notices({ channel: notify, client, kinds: Object.keys(connector.records), ...hears });
          },
        }),
    examine: (signal) =>
      examine({ tables, guarded: guard, notify, tls: connector.tls !== undefined }, signal),
  };
}
