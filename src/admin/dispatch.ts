/**
 * From an HTTP request to an operation and back: who calls, may they, is the request well-formed, then the
 * operation, then the audit log. Every refusal is a problem document.
 */
import express, { type NextFunction, type Request, type Response } from 'express';
import type { z } from 'zod';
import { inBatches } from '../batches.ts';
import { StoreFailure } from '../core/ports.ts';
import { type Actor, createAuthenticator, type Role, roleCovers } from './access.ts';
import type { AuditWatchers } from './events.ts';
import { problemsOf } from '../config/problems.ts';
import { openApiDocument } from './openapi.ts';
import { notAvailableYet, type Operation } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { type AdminProblem, adminProblemDocument } from './problems.ts';

const bodyBytes = 1_048_576;
const linesAtOnce = 500;

/** Everything below /v1. */
export function apiRouter(
  parts: AdminParts,
  operations: readonly Operation[],
  events: AuditWatchers,
): express.Router {
  const router = express.Router();
  const authenticate = createAuthenticator(parts.config.admin.tokens);
  router.use((request, response, next) => {
    const authentication = authenticate(request.get('authorization'));
    if (authentication.ok) {
      response.locals['actor'] = authentication.actor;
      next();
      return;
    }
    const error = authentication.code === 'bad-token' ? ', error="invalid_token"' : '';
    response.set('www-authenticate', `Bearer realm="onewriter"${error}`);
    refuse(response, authentication);
  });
  const parseBody = (limit: number) => [
    express.json({ limit }),
    express.text({ limit, type: 'application/x-ndjson' }),
  ];
  const methods = new Map<string, string[]>();
  for (const operation of operations) {
    methods.set(operation.path, [...(methods.get(operation.path) ?? []), operation.method.toUpperCase()]);
    router[operation.method](
      operation.path,
      needsRole(operation.role),
      ...(operation.body === undefined ? [] : parseBody(operation.bodyBytes ?? bodyBytes)),
      (request, response) => serve(parts, operation, request, response),
    );
  }
  for (const { method, path } of notAvailableYet) {
    router[method](path, (_request, response) => {
      const detail = `${method.toUpperCase()} /v1${path} is not available yet in this version; nothing was done.`;
      refuse(response, { code: 'not-available-yet', detail });
    });
  }
  const document = openApiDocument(operations);
  router.get('/openapi.json', (_request, response) => void response.json(document));
  router.get('/events', async (request, response) => {
    const problem = await events.serve(request, response);
    if (problem !== undefined) refuse(response, problem);
  });
  for (const [path, allowed] of methods) {
    router.all(path, (request, response) => {
      response.set('allow', allowed.join(', '));
      refuse(response, {
        code: 'method-not-allowed',
        detail: `${request.method} is none of ${allowed.join(', ')}.`,
      });
    });
  }
  return router;
}

function needsRole(needed: Role) {
  return (_request: Request, response: Response, next: NextFunction): void => {
    const actor = actorOf(response);
    if (roleCovers(actor.role, needed)) {
      next();
      return;
    }
    refuse(response, {
      code: 'role-needed',
      detail: `Nothing was done: this needs the role ${needed}, and the token "${actor.name}" has ${actor.role}.`,
      members: { role: needed },
    });
  };
}

async function serve(
  parts: AdminParts,
  operation: Operation,
  request: Request,
  response: Response,
): Promise<void> {
  const actor = actorOf(response);
  const input = inputOf(operation, request);
  if ('problem' in input) {
    refuse(response, input.problem);
    return;
  }
  const parameters = request.params as Record<string, string>;
  const reply = await operation.run({ actor, parameters, ...input });
  if ('problem' in reply) {
    refuse(response, reply.problem);
    return;
  }
  if ('lines' in reply) {
    await writeLines(response, reply.lines);
    return;
  }
  if (operation.changes && reply.change === undefined)
    throw new Error(`${operation.path} changed something without an audit entry`);
  if (reply.change !== undefined) {
    const entry = { actor: actor.name, ...reply.change };
    try {
      await parts.audit.append(entry);
    } catch (cause) {
      parts.log('error', 'audit-failed', { ...entry, cause: String(cause) });
      const detail = `The change took effect (${entry.action} ${entry.target}); its audit entry is in the log of this process only.`;
      refuse(response, { code: 'audit-failed', detail, members: { answer: reply.answer } });
      return;
    }
  }
  response.status(operation.status).json(reply.answer);
}

/** As fast as the client reads; others are served in between. */
async function writeLines(response: Response, lines: Iterable<string>): Promise<void> {
  response.type('application/x-ndjson');
  for (const batch of inBatches(lines, linesAtOnce)) {
    const taken = response.write(`${batch.join('\n')}\n`);
    if (!taken && !response.destroyed) {
      await new Promise<void>((resolve) => {
        response.once('drain', resolve);
        response.once('close', resolve);
      });
    }
    if (response.destroyed) return;
  }
  response.end();
}

type Input = { readonly query: unknown; readonly body: unknown } | { readonly problem: AdminProblem };

function inputOf(operation: Operation, request: Request): Input {
  const problems: { path: string; message: string }[] = [];
  const parse = (schema: z.ZodType | undefined, given: unknown): unknown => {
    const parsed = schema?.safeParse(given);
    if (schema === undefined || parsed === undefined || parsed.success) return parsed?.data;
    for (const issue of parsed.error.issues) {
      // Of several forms none fits: the message of zod does not say what they are.
      if (issue.code === 'invalid_union') problems.push(...problemsOf([issue], schema, given));
      else problems.push({ path: issue.path.map(String).join('.'), message: issue.message });
    }
    return undefined;
  };
  let given: unknown = request.body;
  if (operation.body !== undefined) {
    const lines = operation.ndjson === true && request.is('application/x-ndjson') !== false;
    if (!lines && request.is('application/json') === false) {
      const detail = `Nothing was done. Send application/json${operation.ndjson === true ? ' or application/x-ndjson' : ''}.`;
      return { problem: { code: 'unsupported-media-type', detail } };
    }
    if (lines) given = linesOf(String(request.body), problems);
  }
  const query = parse(operation.query, request.query);
  const body = problems.length > 0 ? undefined : parse(operation.body, given ?? {});
  const first = problems[0];
  if (first === undefined) return { query, body };
  const place = first.path === '' ? '' : `${first.path}: `;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  const detail = `Nothing was done. ${place}${first.message}${more}.`;
  return { problem: { code: 'invalid-request', detail, members: { problems } } };
}

function linesOf(text: string, problems: { path: string; message: string }[]): unknown[] {
  const entries: unknown[] = [];
  for (const [at, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    try {
      entries.push(JSON.parse(line));
    } catch {
      if (problems.length < 20) problems.push({ path: `line ${at + 1}`, message: 'is not JSON' });
    }
  }
  return entries;
}

/** The last resort: nothing unexpected reaches the client but a sentence. */
export function answerErrors({ log }: AdminParts) {
  // Express knows an error handler by its four parameters.
  return (error: unknown, request: Request, response: Response, _next: NextFunction): void => {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const problem = problemOfError(error);
    if (problem.code === 'internal-error' || problem.code === 'ledger-unreachable') {
      const cause = error instanceof Error ? (error.stack ?? error.message) : String(error);
      log('error', 'admin-call-failed', { method: request.method, path: request.path, cause });
    }
    refuse(response, problem);
  };
}

function problemOfError(error: unknown): AdminProblem {
  if (error instanceof StoreFailure) {
    return {
      code: 'store-failed',
      detail: `${error.message} Nothing was changed.`,
      members: { kind: error.kind },
    };
  }
  const { type, status, message, name } = error as Partial<Error & { type: string; status: number }>;
  if (type === 'entity.too.large') {
    return { code: 'body-too-large', detail: 'Nothing was done. Send at most 1 MiB; split the import.' };
  }
  if (status === 415)
    return { code: 'unsupported-media-type', detail: 'Nothing was done. Send UTF-8, unpacked.' };
  if (status !== undefined && status < 500) {
    const bad = type === 'entity.parse.failed' ? 'The body is not JSON' : 'The request cannot be read';
    return { code: 'invalid-request', detail: `Nothing was done. ${bad}.` };
  }
  if (
    name === 'MaxRetriesPerRequestError' ||
    /connection is closed|command timed out|ECONN|stream isn't writeable/i.test(message ?? '')
  ) {
    const detail =
      'Redis did not answer, so what was asked may or may not have happened; read it again once it is back.';
    return { code: 'ledger-unreachable', detail };
  }
  return { code: 'internal-error', detail: 'The cause is in the log of the admin process.' };
}

function actorOf(response: Response): Actor {
  return response.locals['actor'] as Actor;
}

export function refuse(response: Response, problem: AdminProblem): void {
  const document = adminProblemDocument({ ...problem });
  response.status(document.status).type('application/problem+json').send(JSON.stringify(document));
}
