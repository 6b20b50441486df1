/** The part of the configuration that says how a store's records are reached over its own API. */
import { z } from 'zod';
import { authSchema } from './rest-auth.ts';
import { call, deletesSchema, getSchema, listSchema } from './rest-calls.ts';
import { errorSchema } from './rest-errors.ts';
import { headerMap, milliseconds, path, positiveMilliseconds, scalar } from './terms.ts';
import { webhookSchema } from './webhook.ts';

const mapRule = z.union([
  z.string(),
  z.strictObject({ const: scalar.describe('The field always has this value.') }),
  z.strictObject({ template: z.string().describe('The field is made from this text and {fields}.') }),
  z.strictObject({ drop: z.literal(true).describe('The field is not copied.') }),
]);

export const recordSchema = z.strictObject({
  list: listSchema.describe('Reads many records.'),
  get: getSchema.describe('Reads one record; 404 or 410 mean that it is gone.'),
  create: call
    .extend({ id: z.string().optional().describe('Field of the answer that holds the new id.') })
    .optional()
    .describe('Creates a record. Left out: put creates, with ids chosen by the caller.'),
  put: call
    .optional()
    .describe('Replaces a record. Where it has a body, {record} in it is the record, {record.PATH} a field.'),
  delete: call.optional().describe('Deletes a record.'),
  bulk: call
    .extend({
      path: path.describe('Path of the call; {partition} is filled in, and then a call holds one partition.'),
      body: z
        .record(z.string(), z.unknown())
        .optional()
        .describe(
          'Body of the call, with "{items}" where the array of records belongs. Left out: the body is the array.',
        ),
      max: z.int().min(1).max(10_000).describe('Most records in one call.'),
    })
    .optional()
    .describe('Creates or replaces many records in one call, under their own ids.'),
  id: z.string().min(1).describe('Path to the id in a record.'),
  partition: z.string().min(1).describe('Path to the partition in a record.'),
  version: z
    .string()
    .optional()
    .describe('Path to a field that grows with every change, or "etag". Left out: the content is compared.'),
  deleted: z
    .string()
    .optional()
    .describe('Path to a field that is set when the record is deleted. Left out: there are no tombstones.'),
  deletes: deletesSchema
    .optional()
    .describe('A list of the ids that were deleted, for platforms whose list of changes does not show them.'),
  writers: z
    .string()
    .min(1)
    .optional()
    .describe(
      'Path to the others who can write the record, named as partitions are, with `[*]` for each entry of an array (`attendees[*].user`). Nobody moves without them.',
    ),
  map: z
    .record(z.string(), mapRule)
    .optional()
    .describe("The other store's field names: a name, a constant, a template or nothing."),
});

export const restConnectorSchema = z.strictObject({
  kind: z.literal('rest').describe('The kind of connector.'),
  headers: headerMap.default({}).describe('Headers of every call, for example authorization.'),
  write: z
    .strictObject({
      headers: headerMap.default({}).describe('Headers of the calls that write copies, over those above.'),
      auth: authSchema.optional().describe('Credentials of those calls, instead of those above.'),
    })
    .optional()
    .describe('A credential of its own for writing copies; then that in headers need only read.'),
  auth: authSchema.optional().describe('Credentials that are more than a header.'),
  error: errorSchema
    .optional()
    .describe('For platforms that answer 200 also where a call has failed: how their answers say so.'),
  rateLimit: z
    .strictObject({
      requests: z.int().min(1).describe('Calls that the store allows in each period.'),
      perMs: positiveMilliseconds.describe('Length of the period in milliseconds.'),
      reserveForUsers: z
        .number()
        .min(0)
        .max(0.99)
        .default(0.5)
        .describe('Share of the calls that the sync leaves to users.'),
      perPartition: z
        .strictObject({
          requests: z.int().min(1).describe('Calls of one partition in each period.'),
          perMs: positiveMilliseconds.describe('Length of the period in milliseconds.'),
        })
        .optional()
        .describe(
          'What the store allows each account besides. The same share is left to users, and a 429 to a call of one partition concerns that one alone.',
        ),
    })
    .optional()
    .describe("The store's limit on calls. Left out: calls are not slowed down."),
  feedDelayMs: milliseconds.default(0).describe('How late the list shows a finished write.'),
  timeoutMs: positiveMilliseconds.default(10_000).describe('Time of one call of the connector.'),
  records: z
    .record(z.string().regex(/^[A-Za-z0-9_-]+$/), recordSchema)
    .describe('The kinds of records, by name.'),
  webhook: webhookSchema
    .optional()
    .describe('Deliveries in which the store says what has changed (docs/sync.md).'),
  freeze: z
    .array(call)
    .min(1)
    .optional()
    .describe(
      "Calls that take a partition's right to write away, made inside the fence; {partition} is filled in.",
    ),
  unfreeze: z
    .array(call)
    .min(1)
    .optional()
    .describe("Calls that give a partition's right to write back; a call made twice must do no harm."),
});

export const otherConnector = z.looseObject({
  kind: z.enum(['caldav']).describe('The kind of connector.'),
});

export type RestConnectorConfig = z.output<typeof restConnectorSchema>;
export type RecordConfig = z.output<typeof recordSchema>;
