/** Pages with an opaque cursor over a sorted list of names. */
import { z } from 'zod';

export const pageQuery = z.strictObject({
  cursor: z.string().max(2_000).optional().describe('The `next` of the page before.'),
  limit: z.coerce.number().int().min(1).max(1_000).default(100).describe('Entries per page.'),
});

export interface NamePage {
  readonly names: readonly string[];
  readonly next?: string;
}

/**
 * The `limit` names after the cursor. The cursor holds the last name seen, not a position, so that names
 * which come or go in between neither repeat nor hide others.
 */
export function pageOfNames(sorted: readonly string[], cursor: string | undefined, limit: number): NamePage {
  const after = cursor === undefined ? undefined : Buffer.from(cursor, 'base64url').toString('utf8');
  const rest = after === undefined ? sorted : sorted.filter((name) => name > after);
  const names = rest.slice(0, limit);
  const last = names.at(-1);
  if (rest.length <= limit || last === undefined) return { names };
  return { names, next: Buffer.from(last, 'utf8').toString('base64url') };
}
