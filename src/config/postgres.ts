/** The part of the configuration that says how a store's records are reached in its PostgreSQL database. */
import { z } from 'zod';
import { milliseconds, port, positiveMilliseconds } from './terms.ts';

/** `"a.b".c` and the like: each part as it stands in the catalog, in double quotes where it holds a dot or a quote. */
const tablePattern = /^(?:(?:[^."]+|"(?:[^"]|"")+")\.)?(?:[^."]+|"(?:[^"]|"")+")$/;

const column = z
  .string()
  .min(1)
  .regex(/^[^.]+$/, 'must be the name of a column, without a dot');

const recordSchema = z.strictObject({
  table: z
    .string()
    .regex(tablePattern, 'must be NAME or SCHEMA.NAME')
    .describe('Table, or SCHEMA.TABLE, as in the catalog; upper case is kept. A view can be read from.'),
  id: column.describe('Column of the id, which must be unique.'),
  partition: column.describe('Column of the partition.'),
  version: column
    .optional()
    .describe(
      'Column that grows with every change, best a timestamptz with an index. Left out: every poll compares everything.',
    ),
  deleted: column
    .optional()
    .describe('Column that is set when a record is deleted; copies are then marked instead of deleted.'),
  columns: z
    .array(z.string().min(1))
    .min(1)
    .optional()
    .describe('Columns that are read and written, beside those above. Left out: all.'),
  forms: z
    .record(z.string(), z.enum(['text', 'local']))
    .default({})
    .describe(
      'How the values of a column are given: text, as PostgreSQL writes them ("12.50"), or local, a timestamp without any zone. Left out: numbers as numbers, bytea as base64, times in UTC.',
    ),
  bulkMax: z.int().min(1).max(10_000).default(500).describe('Most records written in one transaction.'),
  pageSize: z.int().min(1).max(10_000).default(1_000).describe('Records read by one query.'),
});

const tls = z
  .strictObject({
    ca: z.string().optional().describe('PEM file of the authority. Left out: those that Node knows.'),
    cert: z.string().optional().describe('PEM file of our own certificate.'),
    key: z.string().optional().describe('PEM file of its key.'),
    servername: z.string().optional().describe("Name in the server's certificate. Left out: the host."),
  })
  .optional()
  .describe('Speaks TLS, and verifies the certificate. Left out: without TLS.');

export const postgresConnectorSchema = z.strictObject({
  kind: z.literal('postgres').describe('The kind of connector.'),
  url: z
    .url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// URL' })
    .optional()
    .describe('postgres://USER:PASSWORD@HOST:PORT/DATABASE; this, or host and what follows it.'),
  host: z.string().min(1).optional().describe('Name or address, or the directory of a Unix socket.'),
  port: port.optional().describe('Port; 5432 where it is left out.'),
  user: z.string().min(1).optional().describe('Role that reads, and writes copies.'),
  password: z.string().optional().describe('Its password.'),
  database: z.string().min(1).optional().describe('Database; named like the user where it is left out.'),
  tls,
  poolSize: z
    .int()
    .min(1)
    .max(100)
    .default(8)
    .describe('Connections of each process, beside a few for the guard.'),
  connectTimeoutMs: positiveMilliseconds.default(3_000).describe('Time to get a connection.'),
  timeoutMs: positiveMilliseconds.default(10_000).describe('Time of one query or transaction.'),
  feedDelayMs: milliseconds
    .default(0)
    .describe('How late a finished write shows; 0 unless a standby is read.'),
  notify: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]{0,62}$/, 'must be the name of a channel')
    .optional()
    .describe('Channel on which a trigger tells of changes at once (docs/connectors-postgres.md).'),
  records: z
    .record(z.string().regex(/^[A-Za-z0-9_-]+$/), recordSchema)
    .describe('The kinds of records, by name.'),
});

export type PostgresConnectorConfig = z.output<typeof postgresConnectorSchema>;
export type TableConfig = z.output<typeof recordSchema>;
