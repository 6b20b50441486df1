/** Calls of a rest connector: what is sent, where the list goes on, and where records stand in the answers. */
import { z } from 'zod';
import { method, path } from './terms.ts';

const body = z
  .record(z.string(), z.unknown())
  .describe(
    'Body of the call, with placeholders in its texts. A text that is one placeholder and nothing else becomes its value, and is left out with its name where there is none; {NAME:number} becomes a number.',
  );

const form = z
  .boolean()
  .optional()
  .describe('With true, the body is sent as a form (application/x-www-form-urlencoded), not as JSON.');

const size = z
  .int()
  .min(1)
  .describe('Records to ask for on each page; an empty page, 404, or the last page once more is the end.');

const paging = z.union([
  z.strictObject({
    page: z
      .strictObject({
        from: z.int().default(1).describe('Number of the first page.'),
        size,
      })
      .describe('Pages are counted; the call must contain {page}.'),
  }),
  z.strictObject({
    offset: z.strictObject({ size }).describe('Records are counted; the call must contain {offset}.'),
  }),
  z.strictObject({
    last: z
      .string()
      .min(1)
      .describe('Path in the last record of a page; its value is the {cursor} of the next page.'),
  }),
  z.strictObject({
    link: z.string().min(1).describe('Path in the answer to the address of the next page.'),
  }),
  z.literal('link'),
]);

export const sinceForms = ['iso', 'seconds', 'milliseconds', 'http', 'sql', 'day'] as const;

/** What a list of records and one of deleted ids have in common. */
const listing = z.strictObject({
  method: method.default('GET').describe('HTTP method.'),
  path: path.describe('Path of the list.'),
  query: z
    .record(z.string(), z.string())
    .default({})
    .describe(
      'Query parameters; {partition}, {since}, {cursor}, {page}, {offset} and {size} are filled in, and a parameter without a value is left out.',
    ),
  body: body.optional(),
  form,
  items: z.string().default('').describe('Path to the array in the answer; "" when the body is the array.'),
  next: z.string().optional().describe('Path to the cursor of the next page, which {cursor} then carries.'),
  more: z
    .string()
    .optional()
    .describe('Path to whether there are further pages; where it is false or missing, there are none.'),
  paging: paging.optional().describe('How pages follow each other where there is no cursor.'),
  since: z
    .enum(sinceForms)
    .optional()
    .describe(
      'How {since} is written: ISO 8601 in UTC, seconds or milliseconds since 1970, an HTTP date, "YYYY-MM-DD hh:mm:ss" or "YYYY-MM-DD" in UTC. Left out: as the versions of the records are.',
    ),
});

export const listSchema = listing;

export const deletesSchema = listing.extend({
  id: z
    .string()
    .default('id')
    .describe('Path to the id in an entry; "" when the entries are the ids themselves.'),
});

export const getSchema = z.strictObject({
  method: method.default('GET').describe('HTTP method.'),
  path: path.describe('Path of one record; {id} and {partition} are filled in.'),
  body: body.optional(),
  form,
  item: z.string().default('').describe('Path to the record in the answer; "" when the body is the record.'),
  emptyMeansGone: z
    .boolean()
    .default(false)
    .describe('With true, a 2xx answer that has nothing (or null) at item means that the record is gone.'),
});

export const call = z.strictObject({
  method: method.optional().describe('HTTP method.'),
  path: path.describe('Path of the call; {id} and {partition} are filled in.'),
  body: body.optional(),
  form,
});

export type ListConfig = z.output<typeof listing>;
export type CallConfig = z.output<typeof call>;
