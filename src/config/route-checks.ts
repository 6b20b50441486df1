/** Routes and partition rules: whether the places they name can exist in a request they match. */
import { partitionPlaceOf } from '../core/partition-places.ts';
import type { Reporter } from './problems.ts';
import type { Config } from './schema.ts';
import type { ReadableConfig } from './sections.ts';

type Route = Config['routes'][number];

export function routeFindings(config: ReadableConfig, report: Reporter): void {
  const claims =
    config.identity.length === 0 || config.identity.some((rule) => rule === undefined || 'jwt' in rule);
  for (const [at, route] of config.routes.entries()) {
    if (route === undefined) continue;
    const place = `routes[${at}]`;
    checkTemplate(`${place}.path`, route.path, report);
    checkConditions(place, route, report);
    checkPartition(place, route, claims, report);
    checkPartitions(place, route, claims, report);
    checkRecord(place, route, config, report);
    checkReads(place, route, config, report);
    if (route.store !== undefined && route.partition !== undefined) {
      report.problem(
        `${place}.partition`,
        'cannot stand beside store: a route pinned to a store belongs to no partition',
      );
    }
    if (route.store !== undefined && route.partitions !== undefined) {
      report.problem(
        `${place}.partitions`,
        'cannot stand beside store: a route pinned to a store belongs to no partition',
      );
    }
    if (route.store !== undefined && route.record !== undefined) {
      report.problem(
        `${place}.record`,
        'cannot stand beside store: what a pinned route changes is not copied',
      );
    }
  }
  for (const [at, rule] of config.partition.entries()) {
    if (rule === undefined) continue;
    if ('body' in rule && rule.body.split('.').includes('')) {
      report.problem(`partition[${at}].body`, emptyField);
    }
    if ('claim' in rule && !claims) report.problem(`partition[${at}].claim`, withoutClaims);
    if ('path' in rule) checkPartitionPath(`partition[${at}].path`, rule.path, config, report);
  }
}

const withoutClaims = 'needs claims, but no rule of identity is a jwt';

/** What src/core/route.ts understands: `:name` for a whole segment, and `*` as the last one. */
function checkTemplate(place: string, template: string, report: Reporter): void {
  if (/[?#]/.test(template)) report.problem(place, 'must not contain "?" or "#": only the path is matched');
  const segments = template.split('/');
  if (
    segments.some((segment, at) => segment.includes('*') && (segment !== '*' || at < segments.length - 1))
  ) {
    report.problem(place, 'may have "*" only as its last segment, like /calendars/*');
  }
  if (segments.some((segment) => segment.includes(':') && !/^:[A-Za-z_][A-Za-z0-9_]*$/.test(segment))) {
    report.problem(place, 'may have ":" only before the name of a whole segment, like /calendars/:owner');
  }
  const names = parametersOf(template);
  const repeated = names.find((name, at) => names.indexOf(name) !== at);
  if (repeated !== undefined) report.problem(place, `has the parameter :${repeated} twice`);
}

/** What src/core/condition.ts and the header rules of the proxy can hold a request to. */
function checkConditions(place: string, route: Route, report: Reporter): void {
  if (
    route.host !== undefined &&
    !/^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$|^\[[0-9a-f:.]+\]$/i.test(route.host)
  ) {
    report.problem(`${place}.host`, 'must be a host name without a port, or "*." before one');
  }
  const names = Object.keys(route.headers ?? {});
  for (const [at, name] of names.entries()) {
    const lower = name.toLowerCase();
    if (notPassedOn.has(lower) || /^(x-forwarded-|onewriter-)/.test(lower)) {
      report.problem(
        `${place}.headers.${name}`,
        'does not reach the store as the client sent it, so no route may depend on it',
      );
    }
    if (names.findIndex((other) => other.toLowerCase() === lower) < at) {
      report.problem(`${place}.headers.${name}`, 'is there twice: letter case does not count in names');
    }
  }
  for (const path of Object.keys(route.body ?? {})) {
    if (path.split('.').includes('')) report.problem(`${place}.body.${path}`, emptyField);
  }
  if (route.graphql !== undefined && route.access !== undefined) {
    report.problem(
      `${place}.access`,
      'cannot stand beside graphql: what a request asks says whether it writes',
    );
  }
}

const emptyField = 'must be names with single dots between them, like data.owner';
const notPassedOn = new Set([
  ...['host', 'connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'content-length', 'upgrade'],
  ...['expect', 'forwarded', 'http2-settings', 'proxy-authenticate', 'proxy-authorization'],
  ...['proxy-connection', 'x-real-ip', 'x-original-url', 'x-rewrite-url', 'x-original-host', 'destination'],
]);

function parametersOf(template: string): string[] {
  return template
    .split('/')
    .filter((segment) => segment.startsWith(':'))
    .map((segment) => segment.slice(1));
}

function checkPartition(place: string, route: Route, claims: boolean, report: Reporter): void {
  if (route.partition === undefined || route.partition === 'user') return;
  const [, source, name] = /^(path|header|claim|query|body)\.(.+)$/.exec(route.partition) ?? [];
  if (source === undefined || name === undefined) {
    report.problem(
      `${place}.partition`,
      'must be user, path.NAME, header.NAME, claim.NAME, query.NAME or body.FIELD',
    );
  } else if (source === 'path') {
    checkParameter(`${place}.partition`, name, route.path, report);
  } else if (source === 'claim' && !claims) {
    report.problem(`${place}.partition`, withoutClaims);
  } else if (source === 'body' && name.split('.').includes('')) {
    report.problem(`${place}.partition`, emptyField);
  } else if (/\[[*,]\]/.test(name)) {
    report.problem(`${place}.partition`, 'names one place; what has [*] or [,] stands under partitions');
  }
}

const severalPlaces =
  'must be body.FIELD or body[*].FIELD (with [*] for each entry of an array), query.NAME[*], query.NAME[,], header.NAME[*], or a place as under partition';

function checkPartitions(place: string, route: Route, claims: boolean, report: Reporter): void {
  const single = typeof route.partitions === 'string';
  for (const [at, text] of [route.partitions ?? []].flat().entries()) {
    const where = single ? `${place}.partitions` : `${place}.partitions[${at}]`;
    const found = partitionPlaceOf(text);
    if (found === undefined) report.problem(where, severalPlaces);
    if (found?.place !== 'single') continue;
    const [, source, name = ''] = /^(path|claim)\.(.+)$/.exec(found.source) ?? [];
    if (source === 'path') checkParameter(where, name, route.path, report);
    if (source === 'claim' && !claims) report.problem(where, withoutClaims);
  }
}

function checkParameter(place: string, name: string, template: string, report: Reporter): void {
  const names = parametersOf(template);
  if (names.includes(name)) return;
  const known = names.length === 0 ? 'it has none' : `it has ${names.map((one) => `:${one}`).join(', ')}`;
  report.problem(place, `names path.${name}, but the path of the route has no :${name}; ${known}`);
}

function checkRecord(place: string, route: Route, { stores }: ReadableConfig, report: Reporter): void {
  if (route.record === undefined) return;
  const { kind, id } = route.record;
  const [, source, name] = /^(path|response)\.(.+)$/.exec(id) ?? [];
  if (source === undefined || name === undefined) {
    report.problem(`${place}.record.id`, 'must be path.NAME or response.FIELD');
  } else if (source === 'path') {
    checkParameter(`${place}.record.id`, name, route.path, report);
  }
  const connectors = [stores.legacy.connector, stores.app.connector];
  const unreadable = stores.legacy === undefined || stores.app === undefined;
  const rest = connectors.filter((one) => one?.kind === 'rest' || one?.kind === 'postgres');
  if (unreadable || rest.some((connector) => Object.hasOwn(connector.records, kind))) return;
  if (connectors.some((connector) => connector?.kind === 'caldav')) return;
  const kinds = [...new Set(rest.flatMap((connector) => Object.keys(connector.records)))];
  const known = kinds.length === 0 ? 'no connector has records' : `known: ${kinds.join(', ')}`;
  report.problem(`${place}.record.kind`, `is not a kind of record of a connector; ${known}`);
}

function checkReads(place: string, route: Route, config: ReadableConfig, report: Reporter): void {
  const { stores } = config;
  const { reads, maxStalenessMs } = route;
  if (reads !== 'copy' && reads !== 'app') {
    if (maxStalenessMs === undefined) return;
    report.problem(`${place}.maxStalenessMs`, 'needs reads: copy or reads: app beside it');
    return;
  }
  if (route.store !== undefined) {
    report.problem(`${place}.reads`, 'cannot stand beside store: a pinned route always goes to its store');
  }
  if (route.access === 'write') {
    report.problem(`${place}.reads`, 'cannot stand beside access: write: a write goes to the owner');
  }
  const needsCopies = reads === 'copy' || maxStalenessMs !== undefined;
  const read = stores.legacy === undefined || stores.app === undefined;
  if (read || !needsCopies) return;
  const bare = (['legacy', 'app'] as const).filter((name) => stores[name].connector === undefined);
  if (bare.length === 0) {
    checkStaleness(place, route, config, report);
    return;
  }
  report.warning(
    `${place}.reads is ${reads}, but stores.${bare.join(' and stores.')} has no connector: nothing is copied, so no copy is ever fresh enough.`,
  );
}

const stalenessMs = 5_000;

/** Where only full passes show deletes, a copy counts as old as the last of them. */
function checkStaleness(
  place: string,
  route: Route,
  { stores, sync }: ReadableConfig,
  report: Reporter,
): void {
  const { connector } = stores.legacy;
  const { reads, maxStalenessMs = stalenessMs } = route;
  const { fullPassMs } = sync;
  if (connector?.kind !== 'rest' || fullPassMs === undefined || maxStalenessMs >= fullPassMs) return;
  const isByFullPass = ({ version, deleted, list }: (typeof connector.records)[string]): boolean =>
    deleted === undefined &&
    version !== undefined &&
    version !== 'etag' &&
    JSON.stringify(list).includes('{since}');
  const [kind] = Object.entries(connector.records).find(([, record]) => isByFullPass(record)) ?? [];
  if (kind === undefined) return;
  const so = reads === 'copy' ? 'the owner answers nearly every read' : 'clients get 503 copy-too-old';
  report.warning(
    `${place}: copies are hardly ever as new as maxStalenessMs (${maxStalenessMs}) asks, so ${so}: deletes of ${kind} in legacy show only in full passes, ` +
      `every ${fullPassMs} ms (sync.fullPassMs). Name the field that marks deleted records (stores.legacy.connector.records.${kind}.deleted), or let maxStalenessMs be longer than sync.fullPassMs.`,
  );
}

/** A rule's path is a template with `:partition`, or the name of a parameter that some route has. */
function checkPartitionPath(place: string, path: string, config: ReadableConfig, report: Reporter): void {
  if (path.startsWith('/')) {
    checkTemplate(place, path, report);
    if (!parametersOf(path).includes('partition')) {
      report.problem(place, 'must contain the segment :partition, like /orgs/:partition/*');
    }
    return;
  }
  const known = config.routes.some((route) => route === undefined || parametersOf(route.path).includes(path));
  if (!known) report.problem(place, `names the parameter :${path.replace(/^:/, '')}, which no route has`);
}
