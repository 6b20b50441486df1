/** Rest connectors: placeholders that will be filled, paging that can work, kinds that both stores have. */
import type { Reporter } from './problems.ts';
import type { Config } from './schema.ts';
import type { ReadableConfig } from './sections.ts';

type Connector = NonNullable<Config['stores']['legacy']['connector']>;
type RecordKind = Extract<Connector, { readonly kind: 'rest' }>['records'][string];

const listPlaceholders = ['partition', 'since', 'cursor', 'page', 'offset', 'size'];

export function connectorFindings({ stores }: ReadableConfig, report: Reporter): void {
  const { legacy, app } = stores;
  for (const [name, store] of [
    ['legacy', legacy],
    ['app', app],
  ] as const) {
    if (store.connector?.kind !== 'rest') continue;
    for (const [kind, record] of Object.entries(store.connector.records)) {
      checkRecordKind(`stores.${name}.connector.records.${kind}`, record, report);
    }
  }
  if (legacy.connector?.kind !== 'rest' || app.connector?.kind !== 'rest') return;
  const kinds = [legacy.connector, app.connector].map((one) => Object.keys(one.records));
  checkBothHave('stores.app.connector.records', kinds[0] ?? [], kinds[1] ?? [], report);
  checkBothHave('stores.legacy.connector.records', kinds[1] ?? [], kinds[0] ?? [], report);
}

function checkBothHave(
  place: string,
  wanted: readonly string[],
  found: readonly string[],
  report: Reporter,
): void {
  const missing = wanted.filter((kind) => !found.includes(kind));
  if (missing.length > 0) {
    report.problem(place, `has no ${missing.join(', ')}, which the other store has: it could not be copied`);
  }
}

function checkRecordKind(place: string, record: RecordKind, report: Reporter): void {
  const { list } = record;
  checkPlaceholders(`${place}.list.path`, list.path, listPlaceholders, report);
  for (const [name, template] of Object.entries(list.query)) {
    checkPlaceholders(`${place}.list.query.${name}`, template, listPlaceholders, report);
  }
  for (const name of ['get', 'put', 'delete'] as const) {
    const path = record[name]?.path;
    if (path === undefined) continue;
    checkPlaceholders(`${place}.${name}.path`, path, ['id', 'partition'], report);
    if (!path.includes('{id}')) report.problem(`${place}.${name}.path`, 'must contain {id}');
  }
  if (record.create !== undefined) {
    checkPlaceholders(`${place}.create.path`, record.create.path, ['id', 'partition'], report);
  }
  if (record.bulk !== undefined) checkBulk(`${place}.bulk`, record.bulk, report);
  checkPaging(`${place}.list`, list, report);
}

function checkBulk(place: string, bulk: NonNullable<RecordKind['bulk']>, report: Reporter): void {
  checkPlaceholders(`${place}.path`, bulk.path, ['partition'], report);
  if (bulk.body === undefined || holdsItems(bulk.body)) return;
  report.problem(
    `${place}.body`,
    'must have "{items}" as one of its values: the array of records goes there',
  );
}

function holdsItems(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return value === '{items}';
  return Object.values(value).some(holdsItems);
}

function checkPlaceholders(
  place: string,
  template: string,
  known: readonly string[],
  report: Reporter,
): void {
  for (const name of placeholdersOf(template)) {
    if (known.includes(name)) continue;
    const all = known.map((one) => `{${one}}`).join(', ');
    report.problem(place, `contains {${name}}, which nothing fills in; known here: ${all}`);
  }
}

function placeholdersOf(template: string): string[] {
  return [...template.matchAll(/\{([^{}]*)\}/g)].map((match) => match[1] ?? '');
}

function checkPaging(place: string, list: RecordKind['list'], report: Reporter): void {
  const given = new Set([list.path, ...Object.values(list.query)].flatMap(placeholdersOf));
  const { next, paging } = list;
  if (next !== undefined && paging !== undefined) {
    report.problem(`${place}.paging`, 'cannot stand beside next: a list continues in one way');
  }
  const needed: [place: string, needs: boolean, placeholder: string][] = [
    [`${place}.next`, next !== undefined, 'cursor'],
    [`${place}.paging`, typeof paging === 'object' && 'page' in paging, 'page'],
    [`${place}.paging`, typeof paging === 'object' && 'offset' in paging, 'offset'],
  ];
  for (const [where, needs, placeholder] of needed) {
    if (!needs || given.has(placeholder)) continue;
    report.problem(where, `needs {${placeholder}} in list.query; else every page would be the first one`);
  }
  if (given.has('cursor') && next === undefined) {
    report.problem(`${place}.query`, 'contains {cursor}, but list.next does not say where the cursor stands');
  }
}
