/**
 * The third-party calendar platform of the example: a process of its own, in memory, with the habits of
 * such services: rate limits, webhooks, slow answers, errors, and no check for overlapping appointments.
 *
 *   node examples/calendar/platform.ts --port 0 --seed 1 --token SECRET
 *
 * `/_log` and `/_dump` are evidence for checks, for direct callers on this machine only.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parseDraft, parseListQuery, pageOf } from './appointment.ts';
import { isDirectLocal, listen, type Listening, randomFrom, type Reply, secretsEqual } from './network.ts';
import { type Caller, PlatformRecords, webhookSender } from './platform-records.ts';

export interface PlatformOptions {
  readonly port: number;
  readonly seed: number;
  /** API token that sees everybody. */
  readonly token: string;
  /** Requests per second of the token and of each user; 0: no limit. */
  readonly tokenRate: number;
  readonly userRate: number;
  readonly webhook?: string | undefined;
  readonly webhookSecret: string;
  /** Every request waits up to this long before it is handled. */
  readonly jitterMs: number;
  /** Share of requests answered 503 before anything is changed, 0 to 1. */
  readonly errorRate: number;
  /** Share of requests whose answer comes `slowMs` after the work was done. */
  readonly slowRate: number;
  readonly slowMs: number;
  /** Appointments that users u1, u2, … have from the start. */
  readonly users: number;
  readonly recordsPerUser: number;
}

export const platformDefaults: PlatformOptions = {
  port: 0,
  seed: 1,
  token: 'legacy-token',
  tokenRate: 0,
  userRate: 0,
  webhookSecret: 'webhook-secret',
  jitterMs: 0,
  errorRate: 0,
  slowRate: 0,
  slowMs: 1000,
  users: 0,
  recordsPerUser: 3,
};

const bodyBytesMax = 64 * 1024;
const callersRemembered = 10_000;
const recordPath = /^\/api\/appointments\/([^/]+)$/;

/** Starts the platform on 127.0.0.1. */
export function startPlatform(chosen: Partial<PlatformOptions> = {}): Promise<Listening> {
  const options = { ...platformDefaults, ...chosen };
  const random = randomFrom(options.seed);
  const { webhook, webhookSecret } = options;
  const records = new PlatformRecords(
    webhook === undefined ? () => undefined : webhookSender(webhook, webhookSecret),
  );
  fill(records, options);
  const limits = new Map<string, { tokens: number; atMs: number }>();
  const server = createServer((request, response) => {
    handle(request).then(
      (reply) => send(response, reply),
      (error: unknown) => send(response, problem(500, 'broken', String(error))),
    );
  });
  return listen(server, options.port);

  async function handle(request: IncomingMessage): Promise<Reply> {
    const url = new URL(request.url ?? '/', 'http://platform');
    if (url.pathname.startsWith('/_')) return evidence(request, url.pathname, records);
    if (url.pathname === '/login') return { status: 200, html: '<h1>Sign in to the old calendar</h1>' };
    const caller = callerOf(request, options.token);
    if (caller === undefined) return problem(401, 'unauthorized', 'Send x-user, or the API token.');
    const rate = caller.hand === 'copy' ? options.tokenRate : options.userRate;
    const waitSeconds = takeToken(limits, `${caller.hand} ${caller.user}`, rate);
    if (waitSeconds > 0) {
      const limited = problem(429, 'rate-limited', 'Too many requests; wait.');
      return { ...limited, headers: { 'retry-after': String(waitSeconds) } };
    }
    if (random() < options.errorRate) return problem(503, 'overloaded', 'Nothing was changed.');
    if (options.jitterMs > 0) await delay(random() * options.jitterMs);
    const reply = await serve(request, url, caller, records);
    if (random() < options.slowRate) await delay(options.slowMs);
    return reply;
  }
}

async function serve(
  request: IncomingMessage,
  url: URL,
  caller: Caller,
  records: PlatformRecords,
): Promise<Reply> {
  const method = request.method ?? '';
  if (url.pathname === '/api/appointments') {
    if (method === 'GET' || method === 'HEAD') return list(url, caller, records);
    if (method === 'POST') return write(request, undefined, caller, records);
    return problem(405, 'method-not-allowed', `${method} is not possible here.`);
  }
  const id = recordPath.exec(url.pathname)?.[1];
  if (id === undefined) return problem(404, 'not-found', 'There is nothing at this path.');
  if (method === 'PUT') return write(request, id, caller, records);
  const held = records.get(id);
  if (held === undefined || held.deleted_at !== null || !maySee(caller, held.owner_id)) {
    return problem(404, 'not-found', 'There is no such appointment.');
  }
  if (method === 'GET' || method === 'HEAD') return { status: 200, json: held };
  if (method !== 'DELETE') return problem(405, 'method-not-allowed', `${method} is not possible here.`);
  records.remove(held, caller);
  return { status: 204 };
}

function list(url: URL, caller: Caller, records: PlatformRecords): Reply {
  const query = parseListQuery(url.searchParams);
  if (typeof query === 'string') return problem(400, 'bad-request', query);
  const owner = query.owner ?? (caller.hand === 'user' ? caller.user : undefined);
  if (owner !== undefined && !maySee(caller, owner)) {
    return problem(403, 'forbidden', 'This is the calendar of somebody else.');
  }
  return { status: 200, json: pageOf(records.list({ ...query, owner }), query.limit) };
}

/** Creates where no id is given. A person can only change what is there; the token can put any id. */
async function write(
  request: IncomingMessage,
  id: string | undefined,
  caller: Caller,
  records: PlatformRecords,
): Promise<Reply> {
  const body = await readJson(request);
  const draft = parseDraft(body);
  if (typeof draft === 'string') return problem(400, 'bad-request', draft);
  // Looked up only now: while the body came in, the appointment may have changed.
  const held = id === undefined ? undefined : records.get(id);
  const owner = draft.owner_id ?? held?.owner_id ?? caller.user;
  if (!maySee(caller, owner)) return problem(403, 'forbidden', 'This is the calendar of somebody else.');
  if (owner === '') return problem(400, 'bad-request', 'owner_id: the token must say whose it is');
  if (id === undefined) return { status: 201, json: records.create(draft, owner, caller) };
  const there = held !== undefined && held.deleted_at === null && maySee(caller, held.owner_id);
  if (!there && caller.hand === 'user') return problem(404, 'not-found', 'There is no such appointment.');
  return { status: there ? 200 : 201, json: records.put(id, draft, owner, caller) };
}

function maySee(caller: Caller, owner: string): boolean {
  return caller.hand === 'copy' || caller.user === owner;
}

function callerOf(request: IncomingMessage, token: string): Caller | undefined {
  const { authorization } = request.headers;
  if (authorization !== undefined) {
    return secretsEqual(authorization, `Bearer ${token}`) ? { user: '', hand: 'copy' } : undefined;
  }
  const user = request.headers['x-user'];
  return typeof user === 'string' && user !== '' ? { user, hand: 'user' } : undefined;
}

function evidence(request: IncomingMessage, path: string, records: PlatformRecords): Reply {
  if (!isDirectLocal(request)) return problem(404, 'not-found', 'There is nothing at this path.');
  if (path === '/_log') return { status: 200, json: records.log };
  if (path === '/_dump') return { status: 200, json: records.all() };
  return problem(404, 'not-found', 'There is nothing at this path.');
}

/** Takes one of `rate` tokens a second, with a second's worth of burst; else the seconds to wait. */
function takeToken(limits: Map<string, { tokens: number; atMs: number }>, key: string, rate: number): number {
  if (rate <= 0) return 0;
  const nowMs = performance.now();
  const burst = Math.max(1, rate);
  const held = limits.get(key) ?? { tokens: burst, atMs: nowMs };
  held.tokens = Math.min(burst, held.tokens + ((nowMs - held.atMs) / 1000) * rate);
  held.atMs = nowMs;
  if (limits.size >= callersRemembered && !limits.has(key)) limits.clear();
  limits.set(key, held);
  if (held.tokens < 1) return Math.ceil((1 - held.tokens) / rate);
  held.tokens -= 1;
  return 0;
}

function fill(records: PlatformRecords, options: PlatformOptions): void {
  for (let number = 1; number <= options.users; number += 1) {
    const user = `u${number}`;
    for (let at = 0; at < options.recordsPerUser; at += 1) {
      // Long past, so that nothing made later can overlap them.
      const startMs = Date.UTC(2020, 0, 1, 9) + at * 86_400_000;
      const draft = {
        title: `${user} before ${at + 1}`,
        starts_at: new Date(startMs).toISOString(),
        ends_at: new Date(startMs + 3_600_000).toISOString(),
      };
      records.create(draft, user, { user: '', hand: 'copy' });
    }
  }
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    // Read to the end, so that the answer finds the client listening; kept only up to the limit.
    if (text.length <= bodyBytesMax) text += String(chunk);
  }
  try {
    return text.length > bodyBytesMax ? undefined : (JSON.parse(text) as unknown);
  } catch {
    return undefined; // answered as a bad request, like any other body that is no appointment
  }
}

function problem(status: number, code: string, detail: string): Reply {
  return { status, json: { code, detail } };
}

function send(response: ServerResponse, reply: Reply): void {
  const [type, body] =
    reply.html !== undefined ? ['text/html', reply.html] : ['application/json', JSON.stringify(reply.json)];
  if (reply.status === 204) response.writeHead(204, reply.headers).end();
  else response.writeHead(reply.status, { ...reply.headers, 'content-type': type }).end(body);
}

/** Reads the command line. */
function optionsFrom(args: string[]): Partial<PlatformOptions> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    args,
    options: {
      ...{ port: text, seed: text, token: text, 'token-rate': text, 'user-rate': text, webhook: text },
      ...{ 'webhook-secret': text, 'jitter-ms': text, 'error-rate': text, 'slow-rate': text },
      ...{ 'slow-ms': text, users: text, records: text },
    },
  });
  const number = (value: string | undefined, fallback: number): number =>
    value === undefined ? fallback : Number(value);
  return {
    port: number(values.port, platformDefaults.port),
    seed: number(values.seed, platformDefaults.seed),
    token: values.token ?? platformDefaults.token,
    tokenRate: number(values['token-rate'], platformDefaults.tokenRate),
    userRate: number(values['user-rate'], platformDefaults.userRate),
    webhook: values.webhook,
    webhookSecret: values['webhook-secret'] ?? platformDefaults.webhookSecret,
    jitterMs: number(values['jitter-ms'], platformDefaults.jitterMs),
    errorRate: number(values['error-rate'], platformDefaults.errorRate),
    slowRate: number(values['slow-rate'], platformDefaults.slowRate),
    slowMs: number(values['slow-ms'], platformDefaults.slowMs),
    users: number(values.users, platformDefaults.users),
    recordsPerUser: number(values.records, platformDefaults.recordsPerUser),
  };
}

if (import.meta.main) {
  const platform = await startPlatform(optionsFrom(process.argv.slice(2)));
  process.stdout.write(`${JSON.stringify({ listening: platform.url })}\n`);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void platform.close());
}
