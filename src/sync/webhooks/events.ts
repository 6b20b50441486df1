/** Which records a delivery names. Nothing else of it is kept: what to copy, the stores say. */
import type { IncomingHttpHeaders } from 'node:http';
import type { WebhookConfig } from '../../config/schema.ts';
import { isUsableId, type Json } from '../../core/records.ts';
import { isSignableName } from '../../guard/signature.ts';
import { valueAt } from '../../stores/rest/paths.ts';
import { eventIdOf } from './signature.ts';

/** A record that somebody has changed or deleted; without a partition where the delivery does not say it. */
export interface NamedRecord {
  readonly kind: string;
  readonly id: string;
  readonly partition?: string;
}

/** More records than these in one delivery are left to the polls. */
export const namedMax = 5_000;
const eventIdLengthMax = 256;

type EventRule = WebhookConfig['events'][number];

/** Each record once; events that no rule fits, or without a usable id, name none. */
export function recordsIn(rules: readonly EventRule[], body: Json): NamedRecord[] {
  const named = new Map<string, NamedRecord>();
  for (const rule of rules) {
    for (const event of entriesAt(body, rule.each)) {
      if (named.size >= namedMax) return [...named.values()];
      const record = fits(rule, event) ? recordOf(rule, event) : undefined;
      if (record === undefined) continue;
      const { kind, id, partition = '' } = record;
      named.set(JSON.stringify([kind, id, partition]), record);
    }
  }
  return [...named.values()];
}

/** Under which a delivery that comes twice is known; undefined where it does not say. */
export function deliveryIdOf(
  { eventId, signatures: [first] }: WebhookConfig,
  headers: IncomingHttpHeaders,
  body: Json,
): string | undefined {
  const place = eventId ?? (first && eventIdOf(first));
  if (place === undefined) return undefined;
  const name = place.slice(place.indexOf('.') + 1);
  const given = place.startsWith('header.') ? headers[name.toLowerCase()] : textOf(valueAt(body, name));
  return typeof given === 'string' && given.length <= eventIdLengthMax ? given : undefined;
}

/** All entries that a path like `a[*].b[*]` leads to; the body itself without one. */
function entriesAt(body: Json, each: string | undefined): readonly Json[] {
  if (each === undefined) return [body];
  let found: readonly Json[] = [body];
  for (const part of each.split('[*]').slice(0, -1)) {
    const path = part.replace(/^\./, '');
    found = found.flatMap((value): readonly Json[] => {
      const list = valueAt(value, path);
      return Array.isArray(list) ? list : [];
    });
  }
  return found;
}

function fits({ where }: EventRule, event: Json): boolean {
  return Object.entries(where).every(([path, wanted]) => {
    const value = valueAt(event, path);
    return Array.isArray(wanted) ? wanted.some((one) => one === value) : wanted === value;
  });
}

function recordOf({ kind, id: idPath, partition: partitionPath }: EventRule, event: Json) {
  const id = textOf(valueAt(event, idPath));
  if (id === undefined || !isUsableId(id)) return undefined;
  const partition = partitionPath === undefined ? undefined : textOf(valueAt(event, partitionPath));
  const isKnown = partition !== undefined && partition !== '' && isSignableName(partition);
  return { kind, id, ...(isKnown ? { partition } : {}) };
}

/** A number that is too large to be kept exactly would be another record's id. */
function textOf(value: Json | undefined): string | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? String(value) : undefined;
  return typeof value === 'string' ? value : undefined;
}
