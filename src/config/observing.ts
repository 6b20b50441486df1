/**
 * What the configuration of a proxy that only observes may leave out: nothing is signed, nothing goes to the app, and
 * the first look at traffic needs no identity. All else is as in src/config/schema.ts.
 */
import { z } from 'zod';
import { configSchema, identityRule, storesSchema } from './schema.ts';

/** A name that nobody can have (RFC 2606, 2), and a key that signs nothing. */
const nowhere = { url: 'http://app.invalid' };
const signsNothing = 'an observing proxy signs nothing';

const observingSchema = configSchema.extend({
  secret: configSchema.shape.secret.default(signsNothing),
  stores: storesSchema.extend({ app: storesSchema.shape.app.prefault(nowhere) }),
  identity: z.array(identityRule).default([]),
});

/** By what the file says of its mode, as far as it can be read. */
export function schemaFor(file: unknown): typeof configSchema | typeof observingSchema {
  const observing = z.object({ proxy: z.object({ mode: z.literal('observe') }) });
  return observing.safeParse(file).success ? observingSchema : configSchema;
}
