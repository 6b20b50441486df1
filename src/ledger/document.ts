/**
 * The ledger as a document of lines (NDJSON): what an export, a view kept on disk and a rescue view have in
 * common. A head, then one entry per line, then an end that counts them, so that a document that was cut off
 * is told from a whole one.
 */
import { z } from 'zod';
import { cohortSchema } from '../config/schema.ts';
import type { Attributes } from '../core/cohort.ts';
import type { Link } from '../core/links.ts';
import type { Ownership } from '../core/ownership.ts';
import type { Position, Rules } from '../core/view.ts';
import type { StoredCohort } from './books.ts';
import { attributesSchema, ownershipSchema, positionSchema, rulesSchema } from './records.ts';

const name = z.string().min(1).max(512);

const headSchema = z.object({
  is: z.literal('ledger'),
  /** Grows when an older program could misread what stands below. */
  format: z.literal(1, { error: 'is written by another version of onewriter' }),
  kind: z.enum(['export', 'kept-view', 'rescue-view']),
  /** Who wrote it. */
  by: z.string(),
  /** Wall clock of the writer, ms since 1970. */
  atMs: z.number(),
  position: positionSchema,
  confirmed: positionSchema.optional(),
  rules: rulesSchema.optional(),
});

const entrySchema = z.discriminatedUnion('is', [
  z.object({ is: z.literal('partition'), partition: name, ownership: ownershipSchema }),
  z.object({ is: z.literal('known'), partition: name, attributes: attributesSchema }),
  z.object({ is: z.literal('directory'), user: name, partition: name }),
  z.object({
    is: z.literal('cohort'),
    name: z.string().min(1),
    selection: cohortSchema,
    by: z.string(),
    reason: z.string(),
  }),
  z.object({
    is: z.literal('link'),
    partitions: z.tuple([name, name]).readonly(),
    atMs: z.number(),
    route: z.string(),
  }),
  z.object({ is: z.literal('end'), entries: z.int() }),
]);

export type LedgerHead = z.output<typeof headSchema>;
export type LedgerEntry =
  | Exclude<z.output<typeof entrySchema>, { is: 'end' | 'cohort' }>
  | ({ readonly is: 'cohort' } & StoredCohort);

export interface LedgerDocument {
  readonly head: LedgerHead;
  readonly position: Position;
  readonly rules: Rules | undefined;
  readonly partitions: ReadonlyMap<string, Ownership>;
  readonly known: ReadonlyMap<string, Attributes>;
  readonly directory: ReadonlyMap<string, string>;
  readonly cohorts: readonly StoredCohort[];
  readonly links: readonly Link[];
}

export function* documentLines(
  head: Omit<LedgerHead, 'is' | 'format'>,
  entries: Iterable<LedgerEntry>,
): Generator<string> {
  yield JSON.stringify({ is: 'ledger', format: 1, ...head });
  let count = 0;
  for (const entry of entries) {
    count += 1;
    yield JSON.stringify(entry);
  }
  yield JSON.stringify({ is: 'end', entries: count });
}

export function* partitionEntries(
  partitions: Iterable<readonly [string, Ownership]>,
): Generator<LedgerEntry> {
  for (const [partition, ownership] of partitions) yield { is: 'partition', partition, ownership };
}

/** Throws NotALedgerDocument, whose message says which line is wrong. */
export function parseDocument(lines: Iterable<unknown>): LedgerDocument {
  const partitions = new Map<string, Ownership>();
  const known = new Map<string, Attributes>();
  const directory = new Map<string, string>();
  const cohorts: StoredCohort[] = [];
  const links: Link[] = [];
  let head: LedgerHead | undefined;
  let ended: number | undefined;
  let at = 0;
  for (const line of lines) {
    at += 1;
    if (ended !== undefined) throw new NotALedgerDocument(`line ${at} stands after the end`);
    if (head === undefined) {
      head = parsed(headSchema, line, at);
      continue;
    }
    const entry = parsed(entrySchema, line, at);
    switch (entry.is) {
      case 'partition':
        partitions.set(entry.partition, entry.ownership);
        break;
      case 'known':
        known.set(entry.partition, entry.attributes);
        break;
      case 'directory':
        directory.set(entry.user, entry.partition);
        break;
      case 'cohort': {
        const { is: _, ...cohort } = entry;
        cohorts.push(cohort);
        break;
      }
      case 'link': {
        const { is: _, ...link } = entry;
        links.push(link);
        break;
      }
      case 'end':
        ended = entry.entries;
        break;
    }
  }
  if (head === undefined) throw new NotALedgerDocument('it is empty');
  if (ended !== at - 2) throw new NotALedgerDocument('its end is missing, so it is not whole');
  const { position, rules } = head;
  return { head, position, rules, partitions, known, directory, cohorts, links };
}

export class NotALedgerDocument extends Error {
  override readonly name = 'NotALedgerDocument';
}

function parsed<Schema extends z.ZodType>(schema: Schema, line: unknown, at: number): z.output<Schema> {
  let value = line;
  if (typeof line === 'string') {
    try {
      value = JSON.parse(line);
    } catch {
      throw new NotALedgerDocument(`line ${at} is not JSON`);
    }
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const place = issue === undefined || issue.path.length === 0 ? '' : `${issue.path.join('.')} `;
  throw new NotALedgerDocument(
    `line ${at}: ${place}${issue?.message ?? 'is not what a ledger document holds'}`,
  );
}
