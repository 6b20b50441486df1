/** How the partition of a request is found, and what of its path does not belong to a name. */
import { z } from 'zod';
import { headerName } from './terms.ts';

export const partitionRule = z.union([
  z.strictObject({ by: z.literal('user').describe('Every user is a partition.') }),
  z.strictObject({ header: headerName.describe('Header that names the partition.') }),
  z.strictObject({ claim: z.string().min(1).describe('Claim of the token that names the partition.') }),
  z.strictObject({
    path: z.string().min(1).describe('A path template with :partition, or a parameter name.'),
  }),
  z.strictObject({ query: z.string().min(1).describe('Query parameter that names the partition.') }),
  z.strictObject({ body: z.string().min(1).describe('Field of a JSON body that names the partition.') }),
  z.strictObject({
    directory: z
      .literal(true)
      .describe(
        'Look-up in the directory of users (`directory set`, `partitions import`). A user without an entry is left to the next rule; without one, the request is refused.',
      ),
  }),
]);

export const pathEndings = z
  .array(
    z
      .string()
      .regex(/^(?:\*|[a-z0-9_-]+)$/, 'must be an ending in small letters without its dot, like json, or "*"'),
  )
  .optional()
  .describe(
    'Endings that both stores take off the last segment of a path, in small letters and without the dot (`/notes/1.json` is `/notes/1`); "*" where they take off any, as Rails and older Spring do; [] where they take off none. They are taken off before routes and partitions are found. Left out: nobody knows, and a path that would be one of another route without its ending, or of another partition without an ending of documents like .json, is refused.',
  );

export const partitionNames = z
  .strictObject({
    pattern: z
      .string()
      .min(1)
      .refine(isPattern, { error: 'must be a regular expression of JavaScript (with the flag u)' })
      .optional()
      .describe(
        'Regular expression that a name must match as a whole, like `[1-9][0-9]*` where the stores keep whole numbers. Left out: any name but a whole number in another spelling than its shortest (`01`, `+1`, `1.0`, digits of other scripts).',
      ),
    letterCase: z
      .enum(['exact', 'lower'])
      .default('exact')
      .describe(
        'lower: names with upper-case letters are refused. For stores to which `Ann` is `ann`; to the proxy they are two.',
      ),
  })
  .optional()
  .describe(
    'What names of partitions look like, wherever they stand; requests with others are refused. The proxy takes them as they are written: a name that the stores read from several spellings must have only one here, or writes in another spelling pass its fence.',
  );

function isPattern(text: string): boolean {
  try {
    return new RegExp(`^(?:${text})$`, 'u') instanceof RegExp;
  } catch {
    return false;
  }
}
