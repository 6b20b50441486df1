/** What the catalog says of a table: its columns with their types, and what makes its ids unique. */
import type { TableConfig } from '../../config/schema.ts';
import { StoreFailure } from '../../core/ports.ts';
import type { StoreName } from '../../core/ownership.ts';
import { quoted, tableName } from './names.ts';

/** How the values of a column become JSON, and back. */
export type Form = 'plain' | 'number' | 'bytes' | 'zoned' | 'utc' | 'text';

export interface Column {
  readonly name: string;
  /** Base type, quoted: of a domain what it is made of. */
  readonly type: string;
  readonly form: Form;
  /** The database fills it by itself, and takes nothing for it. */
  readonly generated: boolean;
  readonly fromSequence: boolean;
  /** Name of the base type, for example `timestamptz`. */
  readonly base: string;
}

export interface Table {
  readonly kind: string;
  readonly config: TableConfig;
  /** As it stands in SQL. */
  readonly name: string;
  /** Those that are read; all of which are written but for the generated. */
  readonly columns: ReadonlyMap<string, Column>;
  /** A view or the like shows no versions of its rows, and takes no copies. */
  readonly isTable: boolean;
  /** Columns by which a row with the same id is found; empty where nothing makes ids unique. */
  readonly key: readonly string[];
  /** Leading columns of its indexes. */
  readonly indexes: readonly (readonly string[])[];
}

export interface CatalogQuery {
  (sql: string, parameters: readonly unknown[]): Promise<readonly Readonly<Record<string, unknown>>[]>;
}

const relationSql = `
SELECT c.oid::text AS oid, c.relkind FROM pg_class AS c WHERE c.oid = to_regclass($1)`;

const columnsSql = `
SELECT a.attname AS name, n.nspname AS type_schema, t.typname AS type,
       a.attgenerated <> '' AS generated,
       a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE '%nextval(%', false) AS from_sequence
FROM pg_attribute AS a
CROSS JOIN LATERAL (
  WITH RECURSIVE made (oid, of) AS (
    SELECT p.oid, p.typbasetype FROM pg_type AS p WHERE p.oid = a.atttypid
    UNION ALL
    SELECT p.oid, p.typbasetype FROM made JOIN pg_type AS p ON p.oid = made.of
  )
  SELECT oid FROM made WHERE of = 0
) AS base
JOIN pg_type AS t ON t.oid = base.oid
JOIN pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum`;

const indexesSql = `
SELECT array_agg(a.attname::text ORDER BY k.place) AS columns,
       bool_and(i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL) AS is_key
FROM pg_index AS i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = $1::oid AND i.indisvalid AND k.place <= i.indnkeyatts
GROUP BY i.indexrelid`;

/** Throws StoreFailure `bad-answer` where the table or a column is not there. */
export async function readTable(
  query: CatalogQuery,
  store: StoreName,
  kind: string,
  config: TableConfig,
): Promise<Table> {
  const name = tableName(config.table);
  const [relation] = await query(relationSql, [name]);
  if (relation === undefined) {
    throw misfit(store, `the database has no table ${name} for ${kind}, or its schema may not be used`);
  }
  const [rows, indexRows] = await Promise.all([
    query(columnsSql, [relation['oid']]),
    query(indexesSql, [relation['oid']]),
  ]);
  const all = new Map(rows.map((row) => [String(row['name']), columnOf(row, config)]));
  const roles = [config.id, config.partition, config.version, config.deleted].filter(
    (one) => one !== undefined,
  );
  const wanted = config.columns === undefined ? [...all.keys()] : [...new Set([...roles, ...config.columns])];
  const missing = [...new Set([...roles, ...wanted, ...Object.keys(config.forms)])].filter(
    (one) => !all.has(one),
  );
  if (missing.length > 0) {
    throw misfit(store, `table ${name} has no column ${missing.map(quoted).join(', ')} for ${kind}`);
  }
  const keys = indexRows.filter((row) => row['is_key'] === true).map(namesIn);
  return {
    ...{ kind, config, name },
    columns: new Map([...all].filter(([column]) => wanted.includes(column))),
    isTable: relation['relkind'] === 'r' || relation['relkind'] === 'p',
    key: keyAmong(keys, config),
    indexes: indexRows.map(namesIn),
  };
}

function misfit(store: StoreName, what: string): StoreFailure {
  return new StoreFailure('bad-answer', `${store}: ${what}; nothing was concluded about any record`).of(
    store,
  );
}

function namesIn(row: Readonly<Record<string, unknown>>): readonly string[] {
  return row['columns'] as readonly string[];
}

/** The id alone, or the id within its partition. */
function keyAmong(keys: readonly (readonly string[])[], { id, partition }: TableConfig): readonly string[] {
  const ofId = keys.find((key) => key.length === 1 && key[0] === id);
  const ofBoth = keys.find((key) => key.length === 2 && key.includes(id) && key.includes(partition));
  return ofId ?? ofBoth ?? [];
}

const numbers: ReadonlySet<string> = new Set(['int8', 'numeric']);

function columnOf(row: Readonly<Record<string, unknown>>, { forms }: TableConfig): Column {
  const [name, base] = [String(row['name']), String(row['type'])];
  const form = Object.hasOwn(forms, name) ? forms[name] : undefined;
  return {
    ...{ name, base },
    type: `${quoted(String(row['type_schema']))}.${quoted(base)}`,
    form: form === 'text' ? 'text' : form === 'local' ? 'plain' : formOf(base),
    generated: row['generated'] === true,
    fromSequence: row['from_sequence'] === true,
  };
}

function formOf(base: string): Form {
  if (numbers.has(base)) return 'number';
  if (base === 'bytea') return 'bytes';
  if (base === 'timestamptz') return 'zoned';
  return base === 'timestamp' ? 'utc' : 'plain';
}
