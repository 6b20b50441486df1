/** What stands in Redis of a closed rollback window. A restore closes those that it cannot know anything of. */
import { z } from 'zod';

export const closedWindowSchema = z.object({
  by: z.string(),
  reason: z.string(),
  /** Redis's clock. */
  atMs: z.number(),
  /** No operator has closed it: it can be opened again. */
  byRestore: z.literal(true).optional(),
});
export type ClosedWindow = z.output<typeof closedWindowSchema>;

export function closedByRestore(atMs: number): ClosedWindow {
  const reason = 'nobody knows whether it was closed before the ledger lost data';
  return { by: 'ledger restore', reason, atMs, byRestore: true };
}
