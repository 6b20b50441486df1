/** Answers that say in their body that a call has failed, whatever their status is. */
import { z } from 'zod';
import { scalar } from './terms.ts';

export const failureKinds = ['not-found', 'denied', 'rate-limited', 'rejected', 'unavailable'] as const;

export const errorSchema = z.strictObject({
  path: z
    .string()
    .min(1)
    .describe(
      'Path to what tells that a call has failed: it has, where something stands there that is not null, false, 0, "", or empty.',
    ),
  unless: z
    .array(scalar)
    .min(1)
    .optional()
    .describe('Values at path that mean success; anything else there, nothing too, is a failure.'),
  code: z
    .string()
    .optional()
    .describe('Path to the code that is looked up in kinds. Left out: what stands at path.'),
  message: z.string().optional().describe('Path to the text that tells a person why.'),
  retryAfter: z.string().optional().describe('Path to how many seconds a rate limit lasts.'),
  kinds: z
    .record(z.string(), z.enum(failureKinds))
    .default({})
    .describe(
      'What codes mean. Of a code that is not here: numbers mean what they mean as HTTP status; after anything else reads end without a result, and what became of a write is found by reading.',
    ),
});

export type ErrorConfig = z.output<typeof errorSchema>;
export type FailureKind = (typeof failureKinds)[number];
