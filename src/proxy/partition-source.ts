/** Where the name of a partition is found in a request. */
import type { IncomingMessage } from 'node:http';
import type { PartitionRule } from '../config/schema.ts';
import type { Directory } from '../core/homes.ts';
import type { Endings } from '../core/path-readings.ts';
import { compileRoutes } from '../core/route.ts';
import type { MatchedRequest } from './classify.ts';
import { asText, valuesOf } from './field.ts';
import type { Identity } from './identify.ts';
import { nameInBody, nameInQuery, rootsOf, type SeenBody } from './seen-body.ts';

export type Origin = { readonly request: IncomingMessage; readonly matched: MatchedRequest } & {
  readonly identity: Identity | undefined;
};
/** Undefined where the request does not have it; the empty name, where it has it but cannot be read safely. */
export type PartitionSource = (origin: Origin) => string | undefined | { readonly lookUp: string };

export function sourceOf(
  rule: PartitionRule,
  directory: Pick<Directory, 'cached'>,
  endings: Endings,
): PartitionSource {
  if ('by' in rule) return fromUser;
  if ('directory' in rule) return fromDirectory(directory);
  if ('header' in rule) return fromHeader(rule.header);
  if ('claim' in rule) return fromClaim(rule.claim);
  if ('query' in rule) return fromQuery(rule.query);
  if ('body' in rule) return fromBody(rule.body);
  return rule.path.startsWith('/') ? fromTemplate(rule.path, endings) : fromPath(rule.path);
}

/** The rule in the words in which a route would write it. */
export function textOf(rule: PartitionRule): string {
  if ('by' in rule) return rule.by;
  if ('directory' in rule) return 'directory';
  return Object.entries(rule)
    .map(([source, name]) => `${source}.${name}`)
    .join();
}

/** `user`, or a source and a name: path, header, claim, query or body, as a route writes it. */
export function routeSourceOf(text: string): PartitionSource {
  if (text === 'user') return fromUser;
  const [kind, name] = splitOnce(text);
  if (name !== '' && kind === 'path') return fromPath(name);
  if (name !== '' && kind === 'header') return fromHeader(name);
  if (name !== '' && kind === 'claim') return fromClaim(name);
  if (name !== '' && kind === 'query') return fromQuery(name);
  if (name !== '' && kind === 'body') return fromBody(name);
  throw new Error(`"${text}" is no place where a partition could stand`);
}

/** Names of the fields that the configuration could take a partition from. */
export function bodyFieldsOf(
  general: readonly PartitionRule[],
  own: readonly (string | undefined)[],
): readonly string[] {
  const inRoutes = own.filter((text) => text?.startsWith('body.') === true);
  return [
    ...general.flatMap((rule) => ('body' in rule ? [rule.body] : [])),
    ...inRoutes.map((text = '') => text.slice('body.'.length)),
  ];
}

/** Kept instead of the body: a request may wait long. */
export function namesIn(body: SeenBody, fields: readonly string[]): ReadonlyMap<string, string | undefined> {
  return new Map(fields.map((field) => [field, nameInBody(body, field)]));
}

function splitOnce(text: string): [string, string] {
  const dot = text.indexOf('.');
  return dot === -1 ? [text, ''] : [text.slice(0, dot), text.slice(dot + 1)];
}

const fromUser: PartitionSource = ({ identity }) => identity?.user;

/** A user without an entry leaves it to the next rule. */
function fromDirectory(directory: Pick<Directory, 'cached'>): PartitionSource {
  return ({ identity }) => {
    if (identity === undefined) return undefined;
    const entry = directory.cached(identity.user);
    return entry === undefined ? { lookUp: identity.user } : (entry ?? undefined);
  };
}

function fromHeader(header: string): PartitionSource {
  const name = header.toLowerCase();
  return ({ request }) => {
    const values = valuesOf(request.rawHeaders, name);
    if (values.length === 0) return undefined;
    // A repeated field has no one meaning; the empty name is refused by the caller.
    return values.length > 1 ? '' : (asText(values[0] ?? '') ?? '');
  };
}

function fromClaim(name: string): PartitionSource {
  return ({ identity }) => {
    const value = identity?.claims[name];
    if (value === undefined || value === null) return undefined;
    return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  };
}

function fromQuery(name: string): PartitionSource {
  return ({ matched }) => nameInQuery(matched.query, name);
}

function fromBody(path: string): PartitionSource {
  return ({ matched }) => {
    const name = matched.names.get(path);
    if (name === undefined || matched.access === 'read') return name;
    // Servers that put query and body together could take the query's (PHP, Rails, Express).
    const others = rootsOf(path).map((root) => nameInQuery(matched.query, root));
    return others.every((other) => other === undefined || other === name) ? name : '';
  };
}

function fromPath(name: string): PartitionSource {
  return ({ matched }) => matched.route?.parameters[name];
}

function fromTemplate(template: string, endings: Endings): PartitionSource {
  const table = compileRoutes([{ path: template, partition: 'path.partition' }], { endings });
  return ({ matched }) => {
    const found = table(matched);
    return found.match === 'route' ? found.route?.parameters['partition'] : '';
  };
}
