/** The calls of a rest connector: placeholders that will be filled, and paging that can work. */
import type { Reporter } from './problems.ts';
import type { Config } from './schema.ts';

type Connector = NonNullable<Config['stores']['legacy']['connector']>;
type RestConnector = Extract<Connector, { readonly kind: 'rest' }>;
type RecordConfig = RestConnector['records'][string];
type ListConfig = RecordConfig['list'];
type CallConfig = NonNullable<RecordConfig['put']>;

const listPlaceholders = ['partition', 'since', 'cursor', 'page', 'offset', 'size'];
const ofCall = '{partition}';

export function checkRecordKind(place: string, record: RecordConfig, report: Reporter): void {
  checkList(`${place}.list`, record.list, report);
  if (record.deletes !== undefined) checkDeletes(`${place}.deletes`, record, record.deletes, report);
  for (const name of ['get', 'put', 'delete'] as const) {
    const call = record[name];
    if (call === undefined) continue;
    const more = name === 'put' ? ['record'] : [];
    checkCall(`${place}.${name}`, call, { path: ['id', 'partition'], body: more }, report);
    if (name !== 'put') mustName(`${place}.${name}`, call, 'id', report);
    else if (!call.path.includes('{id}') && call.body === undefined) {
      report.problem(`${place}.put.path`, 'must contain {id}');
    }
    if (name === 'put') mustHoldRecord(`${place}.put`, call, report);
  }
  if (record.create !== undefined) {
    const known = { path: ['id', 'partition'], body: ['record'] };
    checkCall(`${place}.create`, record.create, known, report);
    mustHoldRecord(`${place}.create`, record.create, report);
  }
  if (record.bulk !== undefined) checkBulk(`${place}.bulk`, record.bulk, report);
  if (record.partition === ofCall) checkUnnamed(place, record, report);
}

/** `freeze` without its way back would leave a partition that nobody can write to after an abort. */
export function checkFreeze(
  place: string,
  { freeze, unfreeze }: Pick<RestConnector, 'freeze' | 'unfreeze'>,
  report: Reporter,
): void {
  for (const [name, calls] of [
    ['freeze', freeze],
    ['unfreeze', unfreeze],
  ] as const) {
    for (const [at, call] of (calls ?? []).entries()) {
      const here = `${place}.${name}[${at}]`;
      checkCall(here, call, { path: ['partition'], body: [] }, report);
      mustName(here, call, 'partition', report);
      if (call.method === undefined) report.problem(`${here}.method`, 'is missing');
    }
  }
  if ((freeze === undefined) === (unfreeze === undefined)) return;
  const missing = freeze === undefined ? 'freeze' : 'unfreeze';
  report.problem(`${place}.${missing}`, 'is missing: freeze and unfreeze are needed both, or none of them');
}

/** The caller's own records must be told apart by something. */
function checkUnnamed(place: string, record: RecordConfig, report: Reporter): void {
  for (const name of ['list', 'get'] as const)
    mustName(`${place}.${name}`, record[name], 'partition', report);
}

function checkDeletes(place: string, record: RecordConfig, list: ListConfig, report: Reporter): void {
  checkList(place, list, report);
  const given = placeholdersInList(list);
  if (!given.includes('since')) {
    report.problem(place, 'needs {since} in its query or body: it is asked for what is new');
  }
  if (record.version === undefined || record.version === 'etag' || !hasSince(record.list)) {
    report.problem(
      place,
      'needs a list that is asked for changes beside it: version names a field, and list has {since}',
    );
  }
}

function hasSince(list: ListConfig): boolean {
  return placeholdersInList(list).includes('since');
}

function checkList(place: string, list: ListConfig, report: Reporter): void {
  checkCall(place, list, { path: listPlaceholders, body: [] }, report);
  for (const [name, template] of Object.entries(list.query)) {
    checkPlaceholders(`${place}.query.${name}`, placeholdersOf(template), listPlaceholders, report);
  }
  checkPaging(place, list, report);
}

function checkCall(
  place: string,
  call: Pick<CallConfig, 'path' | 'method' | 'body' | 'form'>,
  known: { readonly path: readonly string[]; readonly body: readonly string[] },
  report: Reporter,
): void {
  checkPlaceholders(`${place}.path`, placeholdersOf(call.path), known.path, report);
  checkPlaceholders(`${place}.body`, placeholdersInBody(call.body), [...known.path, ...known.body], report);
  if (call.body !== undefined && /^(get|head)$/i.test(call.method ?? '')) {
    report.problem(`${place}.method`, 'must be one that has a body, like POST, where body is given');
  }
  if (call.form === true && call.body === undefined) {
    report.problem(`${place}.form`, 'needs body: its fields are what the form holds');
  }
}

function mustName(
  place: string,
  call: Pick<ListConfig, 'path' | 'body'> & { readonly query?: Readonly<Record<string, string>> },
  name: string,
  report: Reporter,
): void {
  const given = [
    ...placeholdersOf(call.path),
    ...Object.values(call.query ?? {}).flatMap(placeholdersOf),
    ...placeholdersInBody(call.body),
  ];
  if (given.includes(name)) return;
  report.problem(`${place}.path`, `must contain {${name}}${call.body === undefined ? '' : ', or the body'}`);
}

function mustHoldRecord(place: string, { body }: CallConfig, report: Reporter): void {
  if (body === undefined || placeholdersInBody(body).includes('record')) return;
  report.problem(
    `${place}.body`,
    'must have {record}, or fields of it like {record.title}: else nothing is copied',
  );
}

function checkBulk(place: string, bulk: NonNullable<RecordConfig['bulk']>, report: Reporter): void {
  checkPlaceholders(`${place}.path`, placeholdersOf(bulk.path), ['partition'], report);
  if (bulk.body === undefined) return;
  if (!holdsItems(bulk.body)) {
    report.problem(
      `${place}.body`,
      'must have "{items}" as one of its values: the array of records goes there',
    );
    return;
  }
  checkPlaceholders(`${place}.body`, placeholdersInBody(bulk.body), ['partition', 'items'], report);
}

function holdsItems(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return value === '{items}';
  return Object.values(value).some(holdsItems);
}

function checkPlaceholders(
  place: string,
  found: readonly string[],
  known: readonly string[],
  report: Reporter,
): void {
  for (const name of new Set(found)) {
    if (known.includes(name)) continue;
    const all = known.map((one) => `{${one}}`).join(', ');
    report.problem(place, `contains {${name}}, which nothing fills in; known here: ${all}`);
  }
}

function placeholdersOf(template: string): string[] {
  return [...template.matchAll(/\{([^{}]*)\}/g)].map((match) => match[1] ?? '');
}

/** Without `:number`, and without the path behind a dot. */
function placeholdersInBody(template: unknown): string[] {
  if (typeof template === 'string') {
    return placeholdersOf(template).map((name) => name.replace(/:number$/, '').replace(/\..*$/, ''));
  }
  if (typeof template !== 'object' || template === null) return [];
  return Object.values(template).flatMap(placeholdersInBody);
}

function placeholdersInList({ path, query, body }: ListConfig): string[] {
  return [...[path, ...Object.values(query)].flatMap(placeholdersOf), ...placeholdersInBody(body)];
}

function checkPaging(place: string, list: ListConfig, report: Reporter): void {
  const given = new Set(placeholdersInList(list));
  const { next, paging, more } = list;
  if (next !== undefined && paging !== undefined) {
    report.problem(`${place}.paging`, 'cannot stand beside next: a list continues in one way');
  }
  if (more !== undefined && next === undefined && paging === undefined) {
    report.problem(`${place}.more`, 'needs next or paging: how the list continues where there is more');
  }
  const has = (name: string): boolean => typeof paging === 'object' && name in paging;
  const needed: [place: string, needs: boolean, placeholder: string][] = [
    [`${place}.next`, next !== undefined, 'cursor'],
    [`${place}.paging`, has('page'), 'page'],
    [`${place}.paging`, has('offset'), 'offset'],
    [`${place}.paging`, has('last'), 'cursor'],
  ];
  for (const [where, needs, placeholder] of needed) {
    if (!needs || given.has(placeholder)) continue;
    report.problem(
      where,
      `needs {${placeholder}} in list.query or list.body; else every page would be the first one`,
    );
  }
  if (given.has('cursor') && next === undefined && !has('last')) {
    report.problem(`${place}.query`, 'contains {cursor}, but list.next does not say where the cursor stands');
  }
}
