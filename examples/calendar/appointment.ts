/** What an appointment is, on the platform and in the new application alike, and how a body is read. */
import { z } from 'zod';

export interface Appointment {
  readonly id: string;
  readonly owner_id: string;
  readonly title: string;
  /** ISO 8601 with milliseconds, UTC; as are all times here. */
  readonly starts_at: string;
  readonly ends_at: string;
  readonly location: string | null;
  readonly notes: string | null;
  readonly updated_at: string;
  readonly deleted_at: string | null;
}

const instant = z.iso.datetime({ offset: true }).transform((text) => new Date(text).toISOString());
const name = z.string().min(1).max(200);

/** Fields that a client may send; everything else, like `id` and `updated_at`, is left unread. */
const draftSchema = z
  .object({
    owner_id: name.optional(),
    title: name,
    starts_at: instant,
    ends_at: instant,
    location: z.string().max(1000).nullish(),
    notes: z.string().max(10_000).nullish(),
    deleted_at: instant.nullish(),
  })
  .refine((draft) => draft.starts_at < draft.ends_at, { error: 'must end after it starts' });

export type Draft = z.output<typeof draftSchema>;

/** The body as a draft, or one sentence that says what is wrong with it. */
export function parseDraft(body: unknown): Draft | string {
  const parsed = draftSchema.safeParse(body);
  if (parsed.success) return parsed.data;
  return parsed.error.issues
    .map((issue) => `${issue.path.join('.') || 'the body'}: ${issue.message}`)
    .join('; ');
}

/** One accepted write, as the evidence log of either store keeps it. */
export interface AcceptedWrite {
  readonly at_ms: number;
  readonly user: string;
  /** `user`: a person's write. `copy`: a machine's, by token or by the guard's access `copy`. */
  readonly hand: 'user' | 'copy';
  readonly method: 'POST' | 'PUT' | 'DELETE';
  readonly id: string;
  readonly owner_id: string;
  /** Title after the write; the traffic gives every write a title of its own. */
  readonly title: string;
}

export interface ListQuery {
  readonly owner: string | undefined;
  readonly since: string | undefined;
  readonly includeDeleted: boolean;
  readonly limit: number;
  /** Position after which the page starts. */
  readonly after: { readonly updated_at: string; readonly id: string } | undefined;
}

/** The query string of a list, or one sentence that says what is wrong with it. */
export function parseListQuery(query: URLSearchParams): ListQuery | string {
  const limit = Number(query.get('limit') ?? '50');
  if (!Number.isInteger(limit) || limit < 1) return 'limit must be a whole number from 1';
  const sinceText = query.get('updated_since');
  if (sinceText !== null && Number.isNaN(Date.parse(sinceText))) return 'updated_since must be a time';
  const cursor = query.get('cursor');
  const after = cursor === null ? undefined : parseCursor(cursor);
  if (cursor !== null && after === undefined) return 'this cursor is not one of ours';
  return {
    owner: query.get('owner') ?? undefined,
    since: sinceText === null ? undefined : new Date(sinceText).toISOString(),
    includeDeleted: sinceText !== null || query.get('include_deleted') === '1',
    limit: Math.min(limit, 200),
    after,
  };
}

/** The answer to a list; `found` holds up to one record more than fits the page. */
export function pageOf(
  found: readonly Appointment[],
  limit: number,
): { data: readonly Appointment[]; next_cursor: string | null } {
  const data = found.slice(0, limit);
  const last = data.at(-1);
  if (found.length <= limit || last === undefined) return { data, next_cursor: null };
  const cursor = Buffer.from(`${last.updated_at} ${last.id}`).toString('base64url');
  return { data, next_cursor: cursor };
}

function parseCursor(cursor: string): ListQuery['after'] {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.+)$/.exec(
    Buffer.from(cursor, 'base64url').toString(),
  );
  return match === null ? undefined : { updated_at: match[1] ?? '', id: match[2] ?? '' };
}
