/** Dotted paths into JSON, and the placeholders of configured paths and queries. */
import { type Fields, type Json, valueOf } from '../../core/records.ts';

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * The value at `a.b.c`; the whole value for the empty path; undefined where a step is missing. A number is a place in
 * an array, counted from its end where it is negative. A name with dots in it (`@odata.nextLink`) is found as it is.
 */
export function valueAt(value: Json | undefined, path: string): Json | undefined {
  if (path === '') return value;
  let found: Json | undefined = value;
  for (let rest = path; ;) {
    if (isFields(found) && Object.hasOwn(found, rest)) return found[rest];
    const dot = rest.indexOf('.');
    const name = dot === -1 ? rest : rest.slice(0, dot);
    if (Array.isArray(found)) found = /^-?\d+$/.test(name) ? (found as Json[]).at(Number(name)) : undefined;
    else if (isFields(found) && Object.hasOwn(found, name)) found = found[name];
    else return undefined;
    if (dot === -1) return found;
    rest = rest.slice(dot + 1);
  }
}

/** All values at a path in which `[*]` stands for every entry of an array: `attendees[*].email`. */
export function valuesAt(value: Json | undefined, path: string): Json[] {
  const star = path.indexOf('[*]');
  if (star === -1) {
    const found = valueAt(value, path);
    return found === undefined ? [] : [found];
  }
  const list = valueAt(value, path.slice(0, star));
  const rest = path.slice(star + 3).replace(/^\./, '');
  return Array.isArray(list) ? (list as Json[]).flatMap((entry) => valuesAt(entry, rest)) : [];
}

/** A copy without the value at the path; the input is left as it is. */
export function withoutPath(fields: Fields, path: string): Fields {
  const [name = '', ...rest] = Object.hasOwn(fields, path) ? [path] : path.split('.');
  if (!Object.hasOwn(fields, name)) return fields;
  const { [name]: inner, ...others } = fields;
  if (rest.length === 0) return others;
  return isFields(inner) ? { ...others, [name]: withoutPath(inner, rest.join('.')) } : fields;
}

/** A copy with `value` at the path; objects on the way are made where they are missing. */
export function withPath(fields: Fields, path: string, value: Json): Fields {
  const [name = '', ...rest] = path.split('.');
  if (rest.length === 0) return { ...fields, [name]: value };
  const inner = valueOf(fields, name);
  return { ...fields, [name]: withPath(isFields(inner) ? inner : {}, rest.join('.'), value) };
}

export type PlaceholderValues = Readonly<Record<string, string | undefined>>;

const placeholder = /\{([a-zA-Z]+)\}/g;

export function placeholdersOf(template: string): string[] {
  return [...template.matchAll(placeholder)].map((match) => match[1] ?? '');
}

/** Undefined when a placeholder has no value. */
function filled(
  template: string,
  values: PlaceholderValues,
  encode: (text: string) => string,
): string | undefined {
  let complete = true;
  const text = template.replaceAll(placeholder, (_, name: string) => {
    const value = values[name];
    if (value === undefined) complete = false;
    return encode(value ?? '');
  });
  return complete ? text : undefined;
}

/** A path with its placeholders percent-encoded; undefined when one has no value. */
export function fillPath(template: string, values: PlaceholderValues): string | undefined {
  return filled(template, values, encodeURIComponent);
}

/** `name=value&…`, leaving out the parameters of which a placeholder has no value. */
export function fillQuery(query: Readonly<Record<string, string>>, values: PlaceholderValues): string {
  const parts: string[] = [];
  for (const [name, template] of Object.entries(query)) {
    const value = filled(template, values, (text) => text);
    if (value !== undefined) parts.push(`${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
  }
  return parts.join('&');
}
