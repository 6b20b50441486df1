/** What the API says of stores that fail. */
import { z } from 'zod';

export const failing = z
  .array(
    z.object({
      store: z.enum(['legacy', 'app']),
      kind: z.enum(['denied', 'unavailable', 'bad-answer', 'rejected']),
      phase: z
        .enum(['open', 'trial'])
        .describe('open: nothing is copied; trial: it is let through a little, and one success ends this.'),
      detail: z.string().describe('Of the last failure.'),
      sinceMs: z.number(),
      changedMs: z.number().describe('When the trial began, or it was last tried in vain.'),
      nextTryMs: z.number().nullable().describe('Null on trial.'),
    }),
  )
  .describe('Stores that fail whatever is asked of them: nothing is copied until they answer again.');
