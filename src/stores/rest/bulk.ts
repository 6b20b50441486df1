/**
 * Many records in one call. What a platform answers to such a call is not standardised, so an answer counts
 * only for the records of which it leaves no doubt; the others are looked at again, one by one.
 */
import type { BulkOutcome } from '../../core/ports.ts';
import type { CopyForm, Fields, Json } from '../../core/records.ts';
import type { RestAnswer } from './answers.ts';
import { isFields, valueAt } from './paths.ts';
import { type BodyValues, fillBody } from './templates.ts';

/** The body of one call: the array itself where no template is configured. */
export function bulkBody(
  template: Readonly<Record<string, unknown>> | undefined,
  items: readonly Fields[],
  values: BodyValues = {},
): Json {
  return template === undefined ? items : fillBody(template, { ...values, items });
}

/** Members of an answer that list what became of the records. */
const listMembers = ['results', 'items', 'errors'] as const;
const accepted = 202;
const multiStatus = 207;

/**
 * Reads a 2xx answer to a bulk call that held the records `sent`, in that order; `idPath` is where a record
 * keeps its id. No word about single records means that all were written, except after 202 and 207.
 */
export function readBulkAnswer(answer: RestAnswer, sent: readonly CopyForm[], idPath: string): BulkOutcome {
  const none: BulkOutcome = { written: new Set(), mayStillHappen: answer.status === accepted };
  if (answer.status === accepted) return none;
  const lists = listsIn(answer.body);
  const written = new Set(sent.map(({ id }) => id));
  if (lists.length === 0) return answer.status === multiStatus ? none : { written, mayStillHappen: false };
  for (const { items, complete } of lists) {
    const named = new Map(items.map((item, at) => [nameOf(item, at, items.length, sent, idPath), item]));
    // Somebody was refused, and nobody knows who.
    if (named.has(undefined)) return none;
    for (const { id, fields } of sent) {
      const item = named.get(id);
      if (item === undefined ? complete : !isWritten(item, fields, complete)) written.delete(id);
    }
  }
  return { written, mayStillHappen: false };
}

interface ItemList {
  readonly items: readonly Json[];
  /** It names every record; a list of errors names only those that failed. */
  readonly complete: boolean;
}

function listsIn(body: Json | undefined): readonly ItemList[] {
  if (Array.isArray(body)) return [{ items: body as readonly Json[], complete: true }];
  if (!isFields(body)) return [];
  return listMembers.flatMap((name): ItemList[] => {
    const items = body[name];
    return Array.isArray(items) ? [{ items: items as readonly Json[], complete: name !== 'errors' }] : [];
  });
}

function nameOf(
  item: Json,
  at: number,
  count: number,
  sent: readonly CopyForm[],
  idPath: string,
): string | undefined {
  if (isFields(item)) {
    const id = valueAt(item, idPath) ?? item['id'];
    if (typeof id === 'string' || typeof id === 'number') return String(id);
    const index = item['index'];
    if (typeof index === 'number') return sent[index]?.id;
  }
  return count === sent.length ? sent[at]?.id : undefined;
}

const writtenWords: ReadonlySet<string> = new Set([
  ...[
    'ok',
    'success',
    'succeeded',
    'created',
    'updated',
    'upserted',
    'unchanged',
    'noop',
    'saved',
    'written',
  ],
]);

function isWritten(item: Json, sent: Fields, complete: boolean): boolean {
  if (typeof item === 'number') return isSuccess(item);
  if (!isFields(item) || saysNo(item, sent)) return false;
  const status = resultOf('status', item, sent) ?? resultOf('statusCode', item, sent);
  if (typeof status === 'number') return isSuccess(status);
  if (typeof status !== 'string') return complete || item['success'] === true || item['ok'] === true;
  return /^\d{3}$/.test(status) ? isSuccess(Number(status)) : writtenWords.has(status.toLowerCase());
}

/** A record that is given back has what it was sent with, a status of its own for example. */
function resultOf(name: string, item: Fields, sent: Fields): Json | undefined {
  return sent[name] === undefined ? (item[name] ?? undefined) : undefined;
}

function saysNo(item: Fields, sent: Fields): boolean {
  if (resultOf('success', item, sent) === false || resultOf('ok', item, sent) === false) return true;
  return ['error', 'errors'].some((name) => {
    const error = resultOf(name, item, sent) ?? false;
    return error !== false && error !== '' && !(Array.isArray(error) && error.length === 0);
  });
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300 && status !== accepted;
}
