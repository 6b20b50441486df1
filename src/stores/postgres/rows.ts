/** Queries that read records, and records made from their rows. */
import { type ListScope, type RecordProblem, StoreFailure, type TargetShape } from '../../core/ports.ts';
import type { TableConfig } from '../../config/schema.ts';
import type { Fields, Json, StoreRecord } from '../../core/records.ts';
import { isSignableName } from '../../guard/signature.ts';
import { isInexact, parseExactly } from '../rest/exact-json.ts';
import type { Row } from './database.ts';
import { quoted } from './names.ts';
import type { Column, Table } from './table.ts';
import { fromRow, selected } from './values.ts';

export interface Sql {
  readonly text: string;
  readonly parameters: readonly unknown[];
}

/** Where a list goes on: behind this version and id, or this id. Texts, as PostgreSQL writes them. */
export type Place = readonly [id: string] | readonly [version: string, id: string];

/** What is read of a row, for SELECT and RETURNING: the row as JSON, its place in a list, and what tells its version. */
export function recordColumns({ columns, config, isTable }: Table): string {
  return `${recordFields({ columns, config })}, ${isTable ? 't.xmin::text' : 'NULL'} AS row_version`;
}

/** The same without the row's own version, which a RETURNING of a partitioned table cannot tell. */
export function recordFields({ columns, config }: Pick<Table, 'columns' | 'config'>): string {
  const fields = [...columns.values()].map(selected).join(', ');
  const version = config.version === undefined ? 'NULL' : `t.${quoted(config.version)}::text`;
  return [
    `(SELECT row_to_json(r) FROM (SELECT ${fields}) AS r)::text AS fields`,
    `t.${quoted(config.id)}::text AS id_text`,
    `${version} AS version_text`,
  ].join(', ');
}

/** A page of the list. By id or, of changes, by version and id: rows that are added shift nothing. */
export function pageSql(table: Table, scope: ListScope, place: Place | undefined): Sql {
  const { config, name } = table;
  const parameters: unknown[] = [];
  const value = (given: string, column: string): string =>
    `$${parameters.push(given)}::text::${typeOf(table, column)}`;
  const id = `t.${quoted(config.id)}`;
  const conditions: string[] = [];
  if (scope.partition !== undefined) {
    conditions.push(`t.${quoted(config.partition)} = ${value(scope.partition, config.partition)}`);
  }
  let order = id;
  if (config.version !== undefined && scope.since !== undefined) {
    const version = `t.${quoted(config.version)}`;
    conditions.push(`${version} >= ${value(scope.since, config.version)}`, `${id} IS NOT NULL`);
    order = `${version}, ${id}`;
    if (place?.length === 2) {
      conditions.push(`(${order}) > (${value(place[0], config.version)}, ${value(place[1], config.id)})`);
    }
  } else if (place?.length === 1) conditions.push(`${id} > ${value(place[0], config.id)}`);
  const where = conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`;
  const text = `SELECT ${recordColumns(table)} FROM ${name} AS t${where} ORDER BY ${order} LIMIT ${config.pageSize}`;
  return { text, parameters };
}

/** Where ids are unique only within a partition, the row of this one comes first. */
export function getSql(table: Table, key: { readonly id: string; readonly partition: string }): Sql {
  const { config, name } = table;
  const partition = `t.${quoted(config.partition)}`;
  const text = `SELECT ${recordColumns(table)} FROM ${name} AS t WHERE t.${quoted(config.id)} = $1::text::${typeOf(table, config.id)}`;
  if (table.key.length < 2) return { text: `${text} LIMIT 1`, parameters: [key.id] };
  return {
    text: `${text} ORDER BY (${partition}::text = $2) DESC LIMIT 1`,
    parameters: [key.id, key.partition],
  };
}

export function typeOf({ columns, kind }: Table, column: string): string {
  const type = columns.get(column)?.type;
  if (type === undefined) throw new Error(`column ${column} of ${kind} is not known`);
  return type;
}

export function placeAfter({ config }: Table, scope: ListScope, row: Row): Place {
  const id = String(row['id_text']);
  return config.version !== undefined && scope.since !== undefined ? [String(row['version_text']), id] : [id];
}

export function fieldsOf(columns: ReadonlyMap<string, Column>, row: Row): { fields: Fields; exact: boolean } {
  const parsed = parseExactly(String(row['fields'])) as Fields;
  return { fields: fromRow(columns, parsed), exact: !isInexact(parsed) };
}

/** Longest id that is taken: it becomes part of Redis keys. */
const idLengthMax = 512;

export function recordOf(table: Table, row: Row): StoreRecord | RecordProblem {
  const { kind, config } = table;
  const problem = (detail: string): RecordProblem => ({ kind, detail });
  const { fields, exact } = fieldsOf(table.columns, row);
  const id = nameOf(fields[config.id]);
  if (id === undefined || id.length > idLengthMax || id === '.' || id === '..') {
    return problem(`a row without a usable id in "${config.id}"; it cannot be copied`);
  }
  if (!exact) return problem(`${id} holds a number within JSON or an array that cannot be kept exactly`);
  const partition = nameOf(fields[config.partition]);
  if (partition === undefined || !isSignableName(partition)) {
    return problem(`${id} has no usable partition in "${config.partition}"; it cannot be copied`);
  }
  const version = config.version === undefined ? row['row_version'] : nameOf(fields[config.version]);
  return {
    ...{ kind, id, partition, fields },
    deleted: config.deleted !== undefined && isSet(fields[config.deleted]),
    ...(typeof version === 'string' ? { version } : {}),
  };
}

export function isProblem(read: StoreRecord | RecordProblem): read is RecordProblem {
  return 'detail' in read;
}

export function nameOf(value: Json | undefined): string | undefined {
  if (typeof value === 'number') return String(value);
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** As databases write "no". */
const unset: ReadonlySet<Json> = new Set([null, false, '', 0, '0', 'false', 'f', 'n', 'N', 'no']);

function isSet(value: Json | undefined): boolean {
  return !unset.has(value ?? null);
}

export function shapeOf({ id, partition, version, deleted }: TableConfig): TargetShape {
  return { id, partition, version, deleted };
}

/** The text of a place, and back. Throws StoreFailure for one that this reader has not written. */
export function placeFrom(text: string): Place {
  const parsed: unknown = attemptJson(text);
  const isPlace =
    Array.isArray(parsed) &&
    (parsed.length === 1 || parsed.length === 2) &&
    parsed.every((one) => typeof one === 'string');
  if (!isPlace) throw new StoreFailure('bad-answer', 'a list cannot go on from a place of another connector');
  return parsed as unknown as Place;
}

function attemptJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
