/** Statements that write copies. Values travel as one JSON text, so a statement takes any number of records. */
import { StoreFailure } from '../../core/ports.ts';
import type { StoreName } from '../../core/ownership.ts';
import { type CopyForm, type Fields, type Json, sameValue } from '../../core/records.ts';
import type { Row } from './database.ts';
import { quoted } from './names.ts';
import { fieldsOf, nameOf, recordFields, type Sql, typeOf } from './rows.ts';
import type { Column, Table } from './table.ts';
import { toRow } from './values.ts';

/** Records that have the same columns. */
export interface Batch {
  readonly columns: readonly string[];
  readonly rows: readonly { readonly form: CopyForm; readonly row: Fields }[];
}

/** Throws StoreFailure `rejected` for a record with something that the table has no place for. */
export function batchesOf(store: StoreName, table: Table, forms: readonly CopyForm[]): readonly Batch[] {
  const rows = forms.map((form) => ({ form, row: rowOf(store, table, form) }));
  const same = Map.groupBy(rows, ({ row }) => Object.keys(row).toSorted().join('\0'));
  return [...same.values()].map((alike) => ({ columns: Object.keys(alike[0]?.row ?? {}), rows: alike }));
}

function rowOf(store: StoreName, table: Table, { kind, id, fields }: CopyForm): Fields {
  const { version, deleted } = table.config;
  const row: Record<string, Json> = {};
  for (const [name, value] of Object.entries(fields)) {
    const column = table.columns.get(name);
    if (name === version || name === deleted || column?.generated === true) continue;
    const given = column === undefined ? undefined : toRow(column, value);
    if (given !== undefined) row[name] = given;
    // Nothing is lost where there is nothing.
    else if (value !== null) throw noPlace(store, table, { kind, id }, name, column);
  }
  return row;
}

function noPlace(
  store: StoreName,
  { name: table }: Table,
  { kind, id }: { readonly kind: string; readonly id: string },
  field: string,
  column: Column | undefined,
): StoreFailure {
  const what =
    column === undefined
      ? `has no column for the field "${field}" of ${kind} ${id}: add one, or leave the field out of the copies`
      : `cannot hold the field "${field}" of ${kind} ${id} in its column, which takes bytes as base64`;
  return new StoreFailure('rejected', `table ${table} of ${store} ${what}; nothing was written`);
}

/** Creates or replaces. A row of another partition is left alone, unless it is only marked as deleted. */
export function upsertSql(table: Table, batch: Batch): Sql {
  const { config, name, key } = table;
  const stamps = stampsOf(table);
  const atInsert = stamps.filter((stamp) => stamp.atInsert !== undefined);
  const columns = [...batch.columns, ...atInsert.map(({ column }) => column)].map(quoted).join(', ');
  const values = [
    ...batch.columns.map((column) => `r.${quoted(column)}`),
    ...atInsert.map((stamp) => stamp.atInsert),
  ];
  const replaced = batch.columns
    .filter((column) => !key.includes(column))
    .map((column) => `${quoted(column)} = EXCLUDED.${quoted(column)}`);
  const partition = quoted(config.partition);
  const sets = [
    ...(replaced.length === 0 ? [`${partition} = EXCLUDED.${partition}`] : replaced),
    ...stamps.map(({ column, atUpdate }) => `${quoted(column)} = ${atUpdate}`),
    ...revivedBy(table),
  ];
  const text = `
INSERT INTO ${name} AS t (${columns}) OVERRIDING SYSTEM VALUE
SELECT ${values.join(', ')} FROM ${recordset(table, batch.columns)}
ON CONFLICT (${key.map(quoted).join(', ')}) DO UPDATE SET ${sets.join(', ')}
WHERE t.${partition} = EXCLUDED.${partition}${orDeleted(table)}
RETURNING ${recordFields(table)}`;
  return { text, parameters: [JSON.stringify(batch.rows.map(({ row }) => row))] };
}

/** Only where there is nothing under the id, not even a mark. */
export function insertSql(table: Table, batch: Batch): Sql {
  const { text, parameters } = upsertSql(table, batch);
  return { text: text.replace(/DO UPDATE SET [\s\S]*(?=\nRETURNING)/, 'DO NOTHING'), parameters };
}

/** Only where the row is still of this version. */
export function updateSql(table: Table, batch: Batch, version: string): Sql {
  const { config, name } = table;
  const sets = [
    ...batch.columns.map((column) => `${quoted(column)} = r.${quoted(column)}`),
    ...stampsOf(table).map(({ column, atUpdate }) => `${quoted(column)} = ${atUpdate}`),
    ...revivedBy(table),
  ];
  const same = [config.id, config.partition].map((column) => `t.${quoted(column)} = r.${quoted(column)}`);
  const text = `
UPDATE ${name} AS t SET ${sets.join(', ')} FROM ${recordset(table, batch.columns)}
WHERE ${same.join(' AND ')} AND ${isVersion(table, 2)} RETURNING ${recordFields(table)}`;
  return { text, parameters: [JSON.stringify(batch.rows.map(({ row }) => row)), version] };
}

/** Of this partition alone. Marks the row where the table has a column for that and `hard` does not ask for more. */
export function removeSql(
  table: Table,
  key: { readonly id: string; readonly partition: string },
  { hard, version }: { readonly hard: boolean; readonly version?: string | undefined },
): Sql {
  const { config, name } = table;
  const where = [
    `t.${quoted(config.id)} = $1::text::${typeOf(table, config.id)}`,
    `t.${quoted(config.partition)} = $2::text::${typeOf(table, config.partition)}`,
    ...(version === undefined ? [] : [isVersion(table, 3)]),
  ].join(' AND ');
  const parameters = [key.id, key.partition, ...(version === undefined ? [] : [version])];
  const { deleted } = config;
  if (hard || deleted === undefined) return { text: `DELETE FROM ${name} AS t WHERE ${where}`, parameters };
  const sets = [
    `${quoted(deleted)} = ${markOf(table, deleted)}`,
    ...stampsOf(table).map(({ column, atUpdate }) => `${quoted(column)} = ${atUpdate}`),
  ];
  return {
    text: `UPDATE ${name} AS t SET ${sets.join(', ')} WHERE ${where} AND NOT (${isMarked(table, deleted)})`,
    parameters,
  };
}

function recordset(table: Table, columns: readonly string[]): string {
  const types = columns.map((column) => `${quoted(column)} ${typeOf(table, column)}`).join(', ');
  return `json_to_recordset($1::json) AS r (${types})`;
}

function isVersion(table: Table, at: number): string {
  const { version } = table.config;
  if (version === undefined) return `t.xmin::text = $${at}`;
  return `t.${quoted(version)} = $${at}::text::${typeOf(table, version)}`;
}

const times: ReadonlySet<string> = new Set(['timestamptz', 'timestamp', 'date']);
const integers: ReadonlySet<string> = new Set(['int2', 'int4', 'int8', 'numeric']);

interface Stamp {
  readonly column: string;
  /** Left out: the column's default. */
  readonly atInsert?: string;
  readonly atUpdate: string;
}

/** A copy changes the row, so its version grows, as it does for every other change; a trigger of the table has the last word. */
function stampsOf(table: Table): readonly Stamp[] {
  const column = table.config.version;
  const known = column === undefined ? undefined : table.columns.get(column);
  if (column === undefined || known === undefined || known.generated) return [];
  const { base, type, fromSequence } = known;
  if (times.has(base)) {
    const now = `clock_timestamp()::${type}`;
    return [{ column, atInsert: now, atUpdate: now }];
  }
  if (!integers.has(base)) return [];
  if (fromSequence) return [{ column, atUpdate: 'DEFAULT' }];
  return [{ column, atInsert: '1', atUpdate: `coalesce(t.${quoted(column)}, 0) + 1` }];
}

function markOf(table: Table, deleted: string): string {
  const { base = '', type = '' } = table.columns.get(deleted) ?? {};
  if (times.has(base)) return `clock_timestamp()::${type}`;
  if (base === 'bool') return 'true';
  return integers.has(base) ? '1' : `'true'::${type}`;
}

function isMarked(table: Table, deleted: string): string {
  const { base = '' } = table.columns.get(deleted) ?? {};
  const column = `t.${quoted(deleted)}`;
  if (times.has(base)) return `${column} IS NOT NULL`;
  if (base === 'bool') return `coalesce(${column}, false)`;
  return `coalesce(${column}::text, '') NOT IN ('', '0', 'false', 'f', 'n', 'N', 'no')`;
}

function revivedBy(table: Table): readonly string[] {
  const { deleted } = table.config;
  if (deleted === undefined) return [];
  const { base = '' } = table.columns.get(deleted) ?? {};
  const none = base === 'bool' ? 'false' : integers.has(base) ? '0' : 'NULL';
  return [`${quoted(deleted)} = ${none}`];
}

function orDeleted(table: Table): string {
  const { deleted } = table.config;
  return deleted === undefined ? '' : ` OR ${isMarked(table, deleted)}`;
}

/**
 * What the database holds otherwise than it was sent would be written again with every pass, and was lost the first
 * time: rounded, cut, turned into something else. Throws StoreFailure `rejected`, naming the fields.
 */
export function mustBeHeld(store: StoreName, table: Table, batch: Batch, rows: readonly Row[]): void {
  const { id, partition } = table.config;
  const held = new Map(
    rows.map((row) => fieldsOf(table.columns, row).fields).map((fields) => [nameOf(fields[id]), fields]),
  );
  for (const { form, row } of batch.rows) {
    const fields = held.get(form.id);
    const what = `${form.kind} ${form.id}`;
    if (fields === undefined || nameOf(fields[partition]) !== nameOf(form.fields[partition])) {
      throw new StoreFailure(
        'rejected',
        `${store} holds ${what} for another partition, or writes its id or partition otherwise; it was left alone`,
      );
    }
    const others = Object.keys(row).filter(
      (name) => name !== id && name !== partition && !sameValue(form.fields[name], fields[name]),
    );
    if (others.length === 0) continue;
    throw new StoreFailure(
      'rejected',
      `${store} would hold ${what} otherwise than it was sent (${others.join(', ')}), so it was not written: ` +
        'let the columns take what the fields hold, or give it to them in another form',
    );
  }
}
