/** What a route says of reads that not the owner answers. */
import { z } from 'zod';
import { milliseconds } from './terms.ts';

export const readsOfRoute = {
  reads: z
    .enum(['owner', 'copy', 'app'])
    .optional()
    .describe(
      'Which store answers reads: the owner; the copy, where it lacks no write and is new enough, else the owner; or always the app (docs/routes.md).',
    ),
  maxStalenessMs: milliseconds
    .optional()
    .describe(
      'Oldest copy that may answer a read. Left out: 5000 with reads: copy, any with reads: app; beyond it the app gets no read and the client 503 `copy-too-old`.',
    ),
};
