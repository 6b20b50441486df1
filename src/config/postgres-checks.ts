/** PostgreSQL connectors: an address that says one thing, columns that are named once, a guard where it can stand. */
import type { PostgresConnectorConfig } from './postgres.ts';
import type { Reporter } from './problems.ts';
import type { Config } from './schema.ts';

type Connector = NonNullable<Config['stores']['legacy']['connector']>;
type DatabaseConnector = Extract<Connector, { readonly kind: PostgresConnectorConfig['kind'] }>;

export function postgresFindings(
  setting: string,
  store: { readonly connector?: Connector | undefined; readonly guard?: boolean },
  report: Reporter,
): void {
  const { connector, guard } = store;
  if (connector?.kind !== 'postgres') return;
  const place = `${setting}.connector`;
  if (guard === true && setting === 'stores.legacy') {
    report.problem(
      `${setting}.guard`,
      'cannot be true with kind postgres: the guard in the database is that of the app',
    );
  }
  checkAddress(place, connector, report);
  if (Object.keys(connector.records).length === 0) {
    report.problem(`${place}.records`, 'names no kind of records');
  }
  for (const [kind, record] of Object.entries(connector.records)) {
    checkColumns(`${place}.records.${kind}`, record, report);
  }
}

function checkAddress(place: string, connector: DatabaseConnector, report: Reporter): void {
  const { url, host } = connector;
  if ((url === undefined) === (host === undefined)) {
    report.problem(place, 'needs exactly one of url and host');
  }
  if (url !== undefined) {
    for (const key of ['port', 'user', 'password', 'database'] as const) {
      if (connector[key] !== undefined) report.problem(`${place}.${key}`, 'stands in the url already');
    }
    const [parameter] = new URL(url).searchParams.keys();
    if (parameter !== undefined) {
      report.problem(
        `${place}.url`,
        `cannot have the parameter ${parameter}; TLS and times have keys of their own beside the url`,
      );
    }
  }
  if ((connector.tls?.cert === undefined) !== (connector.tls?.key === undefined)) {
    report.problem(`${place}.tls`, 'needs cert and key together, or neither');
  }
  if (connector.tls !== undefined && host?.startsWith('/') === true) {
    report.problem(`${place}.tls`, 'cannot be spoken over a Unix socket');
  }
}

function checkColumns(place: string, record: DatabaseConnector['records'][string], report: Reporter): void {
  const roles = ['id', 'partition', 'version', 'deleted'] as const;
  const taken = new Map<string, string>();
  for (const role of roles) {
    const column = record[role];
    if (column === undefined) continue;
    const other = taken.get(column);
    // One table of users: each is a partition of its own.
    const mayBeOne = role === 'partition' && other === 'id';
    if (other !== undefined && !mayBeOne) {
      report.problem(`${place}.${role}`, `is the column ${column}, which is ${other} already`);
    }
    taken.set(column, role);
  }
}
