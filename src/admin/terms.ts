/** What many calls take alike. */
import { z } from 'zod';

/** Of a partition or a user. */
export const name = z.string().min(1).max(512);

export const reason = z
  .string({ error: 'must say why; it goes to the audit log' })
  .trim()
  .min(1, 'must say why; it goes to the audit log')
  .max(500);
