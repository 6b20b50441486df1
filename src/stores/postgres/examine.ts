/** What `doctor` says of a database: what the role may do, what is slow, what is missing for copies and for the doorbell. */
import type { Examined } from '../open.ts';
import { StoreFailure } from '../../core/ports.ts';
import type { Row } from './database.ts';
import { literal, quoted } from './names.ts';
import type { Table } from './table.ts';
import type { Tables } from './tables.ts';

export interface ExamineParts {
  readonly tables: Tables;
  readonly guarded: boolean;
  readonly notify: string | undefined;
  readonly tls: boolean;
}

type Ask = (sql: string, parameters?: readonly unknown[]) => Promise<readonly Row[]>;

/** Reads only. Throws StoreFailure where the database does not answer. */
export async function examine(parts: ExamineParts, signal: AbortSignal): Promise<readonly Examined[]> {
  const { tables } = parts;
  const { database } = tables;
  const ask: Ask = (sql, parameters = []) => database.query(sql, parameters, signal);
  const found: Examined[] = [...(await examineServer(parts, ask))];
  if (parts.guarded) found.push(...(await examineGuard(ask)));
  for (const kind of Object.keys(tables.configs)) {
    try {
      const table = await tables.of(kind);
      found.push(
        ...tableFindings(table, database.store === 'app'),
        ...(await examineRights(table, parts, ask)),
      );
      if (parts.notify !== undefined) found.push(await examineTrigger(table, parts.notify, ask));
    } catch (error) {
      if (!(error instanceof StoreFailure)) throw error;
      found.push({
        level: 'fail',
        about: kind,
        detail: error.message,
        advice: `Correct connector.records.${kind}.`,
      });
    }
  }
  return found;
}

async function examineServer({ tls, tables }: ExamineParts, ask: Ask): Promise<Examined[]> {
  const [row] =
    await ask(`SELECT pg_is_in_recovery() AS standby, pg_has_role('pg_read_all_stats', 'USAGE') AS stats,
    coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true) AS near, current_user AS role`);
  const found: Examined[] = [];
  const role = String(row?.['role']);
  if (row?.['standby'] === true) {
    const detail = 'the server is a standby: it takes no copies, and shows writes late';
    found.push({ level: 'warn', about: 'database', detail, advice: 'Name the primary.' });
  }
  if (!tls && row?.['near'] !== true) {
    const detail = 'the connection is not encrypted';
    found.push({ level: 'warn', about: 'database', detail, advice: 'Give connector.tls.' });
  }
  const followsChanges = Object.values(tables.configs).some(({ version }) => version !== undefined);
  if (row?.['stats'] !== true && followsChanges) {
    const detail = `the role ${role} cannot see when transactions of others began, so each look at changes goes back a minute, and what a longer one has written is found by full passes`;
    const advice = `GRANT pg_read_all_stats TO ${quoted(role)};`;
    found.push({ level: 'warn', about: 'database', detail, advice });
  }
  return found;
}

async function examineGuard(ask: Ask): Promise<Examined[]> {
  const [schema] = await ask(`SELECT has_schema_privilege(n.oid, 'USAGE') AS given, current_user AS role,
    EXISTS (SELECT FROM pg_proc AS p WHERE p.pronamespace = n.oid AND p.proname = 'check_all') AS complete
    FROM pg_namespace AS n WHERE n.nspname = 'onewriter'`);
  if (schema?.['complete'] !== true) {
    const detail = 'the database has no guard, or one that is too old';
    return [
      { level: 'fail', about: 'guard', detail, advice: 'Install src/guard/guard.sql in it (docs/guard.md).' },
    ];
  }
  const [table] =
    schema['given'] === true
      ? await ask(`SELECT has_table_privilege('onewriter.guard', 'SELECT')
    AND has_table_privilege('onewriter.guard', 'INSERT') AND has_table_privilege('onewriter.guard', 'UPDATE') AS given`)
      : [];
  if (table?.['given'] === true) return [];
  const role = quoted(String(schema['role']));
  const advice = `GRANT USAGE ON SCHEMA onewriter TO ${role}; GRANT SELECT, INSERT, UPDATE ON onewriter.guard TO ${role};`;
  return [{ level: 'fail', about: 'guard', detail: 'the role may not use the guard', advice }];
}

function tableFindings(table: Table, isTarget: boolean): Examined[] {
  const { kind, config, key, indexes, isTable, columns } = table;
  const found: Examined[] = [];
  const starts = (...wanted: readonly string[]): boolean =>
    indexes.some((index) => wanted.every((column, at) => index[at] === column));
  if (isTarget && (!isTable || key.length === 0)) {
    const detail = isTable
      ? `nothing makes "${config.id}" unique in ${table.name}`
      : `${table.name} is no table`;
    const advice = 'Nothing can be copied to it: add a primary key or a unique constraint on the id.';
    found.push({ level: 'fail', about: kind, detail: `copies cannot be written: ${detail}`, advice });
  }
  if (isTarget && columns.get(config.id)?.fromSequence === true) {
    const detail = `"${config.id}" is filled from a sequence, which does not know of ids that come with copies`;
    const advice =
      'Set the sequence above every id of legacy before the first handoff, or let the app use UUIDs.';
    found.push({ level: 'warn', about: kind, detail, advice });
  }
  const slow: [column: string | undefined, what: string][] = [
    [config.partition, 'the records of one partition'],
    [config.version, 'what has changed'],
  ];
  for (const [column, what] of slow) {
    if (column === undefined || !isTable || starts(column)) continue;
    const detail = `no index begins with "${column}": to find ${what} the whole table is read`;
    const advice = `CREATE INDEX ON ${table.name} (${quoted(column)}, ${quoted(config.id)});`;
    found.push({ level: 'warn', about: kind, detail, advice });
  }
  return found;
}

async function examineRights(table: Table, { tables }: ExamineParts, ask: Ask): Promise<Examined[]> {
  const { store } = tables.database;
  const wanted = store === 'app' ? ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] : ['SELECT'];
  const [row] = await ask(
    `SELECT array_agg(one) FILTER (WHERE NOT has_table_privilege(to_regclass($1)::oid, one)) AS missing,
     current_user AS role FROM unnest($2::text[]) AS one`,
    [table.name, wanted],
  );
  const missing = (row?.['missing'] ?? []) as readonly string[];
  if (missing.length === 0) return [];
  const advice = `GRANT ${missing.join(', ')} ON ${table.name} TO ${quoted(String(row?.['role']))};`;
  const detail = `the role lacks ${missing.join(', ')} on ${table.name}`;
  return [{ level: 'fail', about: table.kind, detail, advice }];
}

/** Arguments of the trigger, as notice.sql takes them. */
function noticeArguments({ kind, config }: Table, channel: string): readonly string[] {
  return [channel, kind, config.id, config.partition];
}

/** The statement that makes the trigger of one table. */
export function triggerSql(table: Table, channel: string): string {
  const given = noticeArguments(table, channel).map(literal).join(', ');
  return `CREATE TRIGGER onewriter_notice AFTER INSERT OR UPDATE OR DELETE ON ${table.name} FOR EACH ROW EXECUTE FUNCTION onewriter.notice(${given});`;
}

async function examineTrigger(table: Table, channel: string, ask: Ask): Promise<Examined> {
  const [row] = await ask(
    `SELECT count(*) > 0 AS there
     FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE t.tgrelid = to_regclass($1) AND n.nspname = 'onewriter' AND p.proname = 'notice'
       AND t.tgenabled IN ('O', 'A') AND encode(t.tgargs, 'escape') = $2`,
    [
      table.name,
      noticeArguments(table, channel)
        .map((one) => `${one}\\000`)
        .join(''),
    ],
  );
  const about = table.kind;
  if (row?.['there'] === true) {
    return { level: 'ok', about, detail: `a trigger tells of changes on ${channel}`, advice: '' };
  }
  const detail = `no trigger tells of changes on ${channel}: they are found by polls alone`;
  const advice = `Install src/stores/postgres/notice.sql, then: ${triggerSql(table, channel)}`;
  return { level: 'warn', about, detail, advice };
}
