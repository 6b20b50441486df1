/**
 * The new calendar application: the platform's API on its own PostgreSQL, behind the guard. It takes
 * requests only from the proxy, and changes only for partitions that it owns.
 *
 *   node examples/calendar/app.ts --port 0 --secret SECRET [--data-dir DIR]   (or DATABASE_URL for a server)
 *
 * `/_log`, `/_dump` and `/_overlaps` are evidence for checks, for direct callers on this machine only.
 */
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import express, { type Express, type Request, type Response } from 'express';
import { guardMiddleware, sendGuardProblem } from '../../src/guard/express.ts';
import type { GuardClaims } from '../../src/guard/signature.ts';
import {
  acceptedWrites,
  allAppointments,
  createAppointment,
  getAppointment,
  listAppointments,
  overlaps,
  putAppointment,
  removeAppointment,
  type Written,
} from './app-appointments.ts';
import { type Database, openDatabase } from './app-database.ts';
import { pageOf, parseDraft, parseListQuery } from './appointment.ts';
import { isDirectLocal, listen, type Listening } from './network.ts';

export interface AppOptions {
  readonly port?: number;
  /** The secret of the proxy's configuration. */
  readonly secret: string;
  /** A PostgreSQL server; without it PGlite, in memory or in `dataDir`. */
  readonly databaseUrl?: string | undefined;
  readonly dataDir?: string | undefined;
}

export async function startApp(options: AppOptions): Promise<Listening> {
  const database = await openDatabase({ url: options.databaseUrl, dataDir: options.dataDir });
  const listening = await listen(createServer(application(database, options.secret)), options.port ?? 0);
  return {
    url: listening.url,
    close: async () => {
      await listening.close();
      await database.close();
    },
  };
}

function application(database: Database, secret: string): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  const evidence = { '/_log': acceptedWrites, '/_dump': allAppointments, '/_overlaps': overlaps };
  for (const [path, read] of Object.entries(evidence)) {
    app.get(path, async (request, response) => {
      if (isDirectLocal(request)) response.json(await read(database));
      else refuse(response, 404, 'not-found', 'There is nothing at this path.');
    });
  }
  app.use(guardMiddleware({ secret, database }));
  app.use(express.json({ limit: '64kb', type: () => true }));
  app.get('/api/appointments', (request, response) => list(database, request, response));
  app.get('/api/appointments/:id', async (request, response) => {
    const found = await getAppointment(database, request.params.id, scopeOf(claimsOf(request)));
    if (found === undefined) answer(response, { done: false, code: 'not-found' }, 200);
    else response.json(found);
  });
  app.post('/api/appointments', (request, response) => write(database, request, response, undefined));
  app.put('/api/appointments/:id', (request, response) =>
    write(database, request, response, request.params.id),
  );
  app.delete('/api/appointments/:id', async (request, response) => {
    answer(response, await removeAppointment(database, claimsOf(request), request.params.id), 204);
  });
  app.use((_request, response) => refuse(response, 404, 'not-found', 'There is nothing at this path.'));
  app.use((error: unknown, _request: Request, response: Response, next: (error: unknown) => void) => {
    const status = (error as { status?: unknown }).status;
    if (response.headersSent) next(error);
    else if (typeof status === 'number' && status < 500)
      refuse(response, status, 'bad-request', String(error));
    else {
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
      refuse(response, 500, 'broken', 'The application failed; nothing was changed.');
    }
  });
  return app;
}

async function list(database: Database, request: Request, response: Response): Promise<void> {
  const query = parseListQuery(new URL(request.originalUrl, 'http://app').searchParams);
  if (typeof query === 'string') {
    refuse(response, 400, 'bad-request', query);
    return;
  }
  const scope = scopeOf(claimsOf(request));
  if (scope !== undefined && query.owner !== undefined && query.owner !== scope) {
    answer(response, { done: false, code: 'forbidden' }, 200);
    return;
  }
  const found = await listAppointments(database, { ...query, owner: scope ?? query.owner });
  response.json(pageOf(found, query.limit));
}

/** Creates where no id is given. The record's owner must be the partition that the proxy signed. */
async function write(
  database: Database,
  request: Request,
  response: Response,
  id: string | undefined,
): Promise<void> {
  const claims = claimsOf(request);
  const draft = parseDraft(request.body);
  if (typeof draft === 'string') refuse(response, 400, 'bad-request', draft);
  else if (draft.owner_id !== undefined && draft.owner_id !== claims.partition) {
    answer(response, { done: false, code: 'forbidden' }, 200);
  } else if (id === undefined) answer(response, await createAppointment(database, claims, draft), 201);
  else answer(response, await putAppointment(database, claims, id, draft), 200);
}

/**
 * Whose appointments this request may see: those of its partition. Only onewriter's own reads over all
 * partitions are signed without one; an empty user alone may also be somebody who did not sign in.
 */
function scopeOf(claims: GuardClaims): string | undefined {
  return claims.partition === '' && claims.user === '' ? undefined : claims.partition;
}

function claimsOf(request: Request): GuardClaims {
  if (request.onewriter === undefined) throw new Error('a request passed the guard without claims');
  return request.onewriter;
}

function answer(response: Response, written: Written, status: number): void {
  if (written.done) {
    if (status === 204) response.status(204).end();
    else response.status(status).json(written.appointment);
    return;
  }
  switch (written.code) {
    case 'not-found':
      refuse(response, 404, 'not-found', 'There is no such appointment.');
      return;
    case 'forbidden':
      refuse(response, 403, 'forbidden', 'This is the calendar of somebody else.');
      return;
    case 'overlap':
      refuse(response, 409, 'overlap', 'Another appointment takes place at that time; nothing was changed.');
      return;
    case 'bad-request':
      refuse(response, 400, 'bad-request', 'A copy is put under the id of its original.');
      return;
    case 'stale-epoch':
    case 'closed-epoch':
    case 'legacy-owns':
    case 'app-owns':
    case 'read-access':
      sendGuardProblem(response, written.code);
  }
}

function refuse(response: Response, status: number, code: string, detail: string): void {
  const problem = { type: `urn:calendar:problem:${code}`, title: code, status, detail, code };
  response.status(status).type('application/problem+json').send(JSON.stringify(problem));
}

if (import.meta.main) {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({ options: { port: text, secret: text, 'data-dir': text } });
  const secret = values.secret ?? process.env['ONEWRITER_SECRET'];
  if (secret === undefined) {
    process.stderr.write('Give the proxy’s secret with --secret or ONEWRITER_SECRET.\n');
    process.exit(1);
  }
  const app = await startApp({
    port: Number(values.port ?? 0),
    secret,
    dataDir: values['data-dir'],
    databaseUrl: process.env['DATABASE_URL'],
  });
  process.stdout.write(`${JSON.stringify({ listening: app.url })}\n`);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void app.close());
}
