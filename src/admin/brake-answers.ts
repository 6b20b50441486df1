/** What the API says of deletes that are held back. */
import { z } from 'zod';
import { count, store } from './answers.ts';

export const brakeAnswer = z.object({
  partition: z.string(),
  deletes: count.describe('Copies that would be deleted at once.'),
  limit: count.describe('So many need no leave.'),
  records: count.describe('Records in the copy.'),
  store: store.optional().describe('Where they would be deleted; the other store owns the records.'),
  first: z.array(z.string()).describe('A few of them, as kind and id.'),
  atMs: z.number().describe('Since when, Redis clock.'),
});
export type BrakeAnswer = z.output<typeof brakeAnswer>;
export const brakeOnAllAnswer = z.object({
  deletes: count.describe('Copies that are to be deleted and are not, about.'),
  lately: count.describe('Deleted within the hour before.'),
  limit: count.describe('So many within an hour need no leave.'),
  copies: count.describe('Copies in all partitions, about.'),
  stores: z.array(store).describe('Where those are that wait; the other store owns their records.'),
  first: z.array(z.string()).describe('A few of them, as partition, kind and id.'),
  atMs: z.number().describe('Since when, Redis clock.'),
});
export type BrakeOnAllAnswer = z.output<typeof brakeOnAllAnswer>;
export const brakesAnswer = z.object({
  brakes: z.array(brakeAnswer),
  onAll: brakeOnAllAnswer.nullable().describe('While it holds, nothing is deleted in any partition.'),
});
