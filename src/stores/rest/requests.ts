/** Makes the calls of a connector out of its configuration: address, query and body, filled in. */
import type { CallConfig, ListConfig } from '../../config/rest-calls.ts';
import { instantIn, type Notation, writeInstant } from '../../core/instants.ts';
import type { Json } from '../../core/records.ts';
import type { RestCall } from './answers.ts';
import { fillPath, fillQuery, type PlaceholderValues } from './paths.ts';
import { fillBody } from './templates.ts';

export type Request = Pick<RestCall, 'method' | 'path' | 'body' | 'form'>;

/** Undefined where the path has a placeholder without a value. */
export function listRequest(list: ListConfig, values: PlaceholderValues): Request | undefined {
  const since = sinceIn(list.since, values['since']);
  const all: PlaceholderValues = { ...values, ...(since === undefined ? {} : { since }) };
  const path = fillPath(list.path, all);
  if (path === undefined) return undefined;
  const query = fillQuery(list.query, all);
  const target = query === '' ? path : `${path}${path.includes('?') ? '&' : '?'}${query}`;
  return requestTo(list, target, all);
}

/** The address is another one, and all else as in the list's first call. */
export function requestTo(list: ListConfig, path: string, values: PlaceholderValues): Request {
  const { body, form, method } = list;
  return { method: method.toUpperCase(), path, form, ...(body && { body: fillBody(body, typed(values)) }) };
}

/** A call about one record, or one partition; `values` that are no text stand only in the body. */
export function callRequest(
  call: CallConfig,
  usualMethod: string,
  values: Readonly<Record<string, Json | undefined>>,
): Request {
  const texts = Object.entries(values).filter(([, value]) => typeof value === 'string');
  const path = fillPath(call.path, Object.fromEntries(texts) as PlaceholderValues) ?? call.path;
  const { method = usualMethod, body, form } = call;
  return { method: method.toUpperCase(), path, form, ...(body && { body: fillBody(body, values) }) };
}

const counted = ['page', 'offset', 'size'];

/** Where a number is counted by us, a body has it as a number. */
function typed(values: PlaceholderValues): Readonly<Record<string, Json | undefined>> {
  const entries = Object.entries(values).map(([name, value]): [string, Json | undefined] => [
    name,
    value !== undefined && counted.includes(name) ? Number(value) : value,
  ]);
  return Object.fromEntries(entries);
}

const notations: Readonly<Record<NonNullable<ListConfig['since']>, Notation>> = {
  iso: 'iso',
  sql: 'sql',
  day: 'day',
  http: 'http',
  seconds: 'seconds',
  milliseconds: 'milliseconds',
};

/** Undefined: it stays as it is. */
function sinceIn(form: ListConfig['since'], since: string | undefined): string | undefined {
  if (form === undefined || since === undefined) return undefined;
  const instant = instantIn(since);
  return instant === undefined ? undefined : writeInstant(instant.ms, notations[form]);
}
