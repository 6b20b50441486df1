/**
 * A short stand-in for a record's content, so that two whole stores can be compared without holding both in
 * memory. Equal digests mean equal in the sense of core's sameValue: key order, null and absent, and
 * notations of one instant make no difference.
 */
import { createHash } from 'node:crypto';
import { type Fields, instantOf, type Json, valueOf } from '../core/records.ts';

export function digestOf(fields: Fields, names: Iterable<string>): string {
  const parts: string[] = [];
  for (const name of [...names].toSorted()) {
    const value = canonical(valueOf(fields, name));
    if (value !== undefined) parts.push(`${JSON.stringify(name)}:${value}`);
  }
  return createHash('sha256').update(parts.join(',')).digest('base64');
}

/** Undefined for null and absent. */
function canonical(value: Json | undefined): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string') {
    const instant = instantOf(value);
    return instant === undefined ? JSON.stringify(value) : `@${instant}`;
  }
  if (typeof value !== 'object') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((item: Json) => canonical(item) ?? 'null').join(',')}]`;
  const fields = value as Fields;
  const parts = Object.keys(fields)
    .toSorted()
    .map((name) => [name, canonical(fields[name])] as const)
    .filter(([, text]) => text !== undefined)
    .map(([name, text]) => `${JSON.stringify(name)}:${text}`);
  return `{${parts.join(',')}}`;
}
