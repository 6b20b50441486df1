/** The part of the configuration about the copies: how often the sync looks, and when it gives a record up. */
import { z } from 'zod';
import { positiveMilliseconds } from './terms.ts';

export const syncSchema = z.strictObject({
  pollMs: positiveMilliseconds.default(1_000).describe("Pause between looks at the owner's changes."),
  rollbackWindow: z
    .union([z.literal('off'), z.literal('on'), z.boolean()])
    .default('off')
    .describe('on: what users write in the app after a commit is copied back to legacy (docs/sync.md).'),
  fullPassMs: positiveMilliseconds
    .default(60_000)
    .describe(
      'Pause between full passes over everything where a list shows what is new: they find what such a list hides. Elsewhere every poll is one.',
    ),
  attempts: z.int().min(1).max(50).default(5).describe('Tries before a record becomes a dead letter.'),
  strayPassMs: positiveMilliseconds
    .default(300_000)
    .describe('Pause between full looks for changes in a store that does not own the partition any more.'),
});
