/**
 * One of the two stores, as a process: `legacy`, a platform without a guard, or `app`, which lets through only
 * what the proxy signed and asks the guard's rule in the same step as it writes.
 *
 *   node test/faults/store.ts --store legacy|app --port N --log FILE --secret S --token T --seed N --give-up-ms N
 *
 * It takes its orders to misbehave over the IPC channel.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { parseArgs } from 'node:util';
import {
  guardAdvance,
  type GuardRow,
  guardSeal,
  guardVerdict,
  unknownToGuard,
} from '../../src/core/guard.ts';
import { type GuardClaims, verifyGuard } from '../../src/guard/signature.ts';
import { chanceFrom } from './chance.ts';
import { type CallKind, Faults, type Hit, type StoreOrder } from './store-faults.ts';
import { type Author, type Item, positionOf, StoreRecords } from './store-records.ts';
import type { Store } from './words.ts';

const text = { type: 'string' } as const;
const { values } = parseArgs({
  options: { store: text, port: text, log: text, secret: text, token: text, seed: text, 'give-up-ms': text },
});
const store: Store = values.store === 'app' ? 'app' : 'legacy';
const secret = values.secret ?? '';
const records = new StoreRecords(store, values.log ?? '');
const faults = new Faults(chanceFrom(Number(values.seed)));
/** The longest that a caller may take until it gives a call up; nothing is done later than that plus the settle time. */
const giveUpMs = Number(values['give-up-ms']);
const rows = new Map<string, GuardRow>();

interface Call {
  readonly kind: CallKind;
  readonly partition: string;
  readonly id: string;
  readonly url: URL;
  readonly method: string;
  readonly body: Record<string, unknown>;
  readonly token: string;
  /** What the proxy signed; the platform sees nothing of it. */
  readonly claims: GuardClaims | undefined;
  readonly copies: boolean;
}

interface Reply {
  readonly status: number;
  readonly body?: unknown;
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const arrivedMs = performance.now();
  const gone = new Promise<number>((resolve) => response.once('close', () => resolve(performance.now())));
  const call = await understand(request);
  if ('status' in call) return reply(response, call);
  const hit = faults.meet(call.kind, call.partition);
  if (hit === undefined) return reply(response, carryOut(call));
  return misbehave(hit, call, response, gone, arrivedMs);
}

async function misbehave(
  hit: Hit,
  call: Call,
  response: ServerResponse,
  gone: Promise<number>,
  arrivedMs: number,
): Promise<void> {
  const { rule } = hit;
  const forMs = rule.forMs ?? 0;
  switch (rule.misbehaviour) {
    case 'hang':
      return;
    case 'slow':
      await pause(faults.slowness(rule));
      return reply(response, carryOut(call));
    case 'lose-answer':
      carryOut(call);
      response.socket?.resetAndDestroy();
      return;
    case 'hold':
      process.send?.({ news: 'held', rule: rule.name });
      await hit.lifted;
      return reply(response, carryOut(call));
    case 'late': {
      // A caller that is frozen or dead never closes: then it counts as having given up at its time limit.
      const goneMs = await Promise.race([
        gone,
        pause(giveUpMs - (performance.now() - arrivedMs)).then(() => arrivedMs + giveUpMs),
      ]);
      await pause(goneMs + faults.lateness(rule) - performance.now());
      // This process may have been kept waiting itself; what would come too late does not come.
      if (performance.now() < goneMs + 0.85 * forMs) carryOut(call);
      response.destroy();
    }
  }
}

async function understand(request: IncomingMessage): Promise<Call | Reply> {
  const { method = 'GET', headers } = request;
  const target = request.url ?? '/';
  const body = await readJson(request);
  const url = new URL(target, 'http://store');
  const copiesByToken = headers.authorization === `Bearer ${values.token}`;
  let claims: GuardClaims | undefined;
  if (store === 'app') {
    const nowSeconds = Math.floor(Date.now() / 1000);
    const verdict = verifyGuard({ secret, nowSeconds, method, target, headers });
    if (!verdict.ok) return problem(403, verdict.code);
    claims = verdict.claims;
  }
  const header = headers['x-partition'];
  const own = typeof header === 'string' ? header : '';
  const copies = claims === undefined ? copiesByToken : claims.access === 'copy';
  const sync = claims === undefined ? copiesByToken : claims.user === '';
  const id = decodeURIComponent(url.pathname.split('/')[2] ?? '');
  const guardCall = /^\/\.well-known\/onewriter\/guard\/(verdict|advance|seal)$/.exec(url.pathname)?.[1];
  const token = headers['x-token'];
  const rest = { id, url, method, body, claims, copies, token: typeof token === 'string' ? token : '' };
  const partition = claims?.partition ?? (own === '' ? (url.searchParams.get('owner') ?? '') : own);
  if (guardCall !== undefined) return { ...rest, partition, kind: `guard:${guardCall}` as CallKind };
  if (!/^\/items(\/[^/]+)?$/.test(url.pathname)) return problem(404, 'not-found');
  if (method !== 'GET') return { ...rest, partition, kind: copies ? 'copy' : 'write' };
  const kind = sync ? (id === '' ? 'sync-list' : 'sync-read') : 'user-read';
  return { ...rest, partition, kind };
}

/** Everything that a call does, in one step: no other call can come in between. */
function carryOut(call: Call): Reply {
  if (call.kind.startsWith('guard:')) return moveGuard(call);
  if (call.method === 'GET') return call.id === '' ? list(call) : read(call);
  return write(call);
}

function moveGuard({ kind, claims }: Call): Reply {
  if (claims === undefined) return problem(404, 'not-found');
  const { partition, epoch } = claims;
  const row = rows.get(partition) ?? unknownToGuard;
  if (kind === 'guard:verdict')
    return { status: 200, body: { partition, ...guardVerdict(row, claims.access, epoch).row } };
  if (claims.access !== 'copy') return problem(400, 'bad-guard-call');
  const after = kind === 'guard:advance' ? guardAdvance(row, epoch) : guardSeal(row, epoch);
  rows.set(partition, after);
  const accept = after.epoch === epoch && after.closed && (kind === 'guard:advance' || after.owner === 'app');
  return accept
    ? { status: 200, body: { partition, ...after, accept } }
    : { status: 409, body: { partition, ...after, accept, code: 'stale-epoch' } };
}

function read({ id }: Call): Reply {
  const item = records.get(id);
  return item === undefined || item.deleted_at !== null
    ? problem(404, 'not-found')
    : { status: 200, body: item };
}

function list({ url: { searchParams } }: Call): Reply {
  const limit = Math.min(100, Number(searchParams.get('limit') ?? '50'));
  const cursor = searchParams.get('cursor');
  const found = records.list({
    owner: searchParams.get('owner'),
    since: searchParams.get('updated_since'),
    after: cursor === null ? null : Buffer.from(cursor, 'base64url').toString(),
    limit,
  });
  const data = found.slice(0, limit);
  const last = data.at(-1);
  const more = found.length > limit && last !== undefined;
  return {
    status: 200,
    body: { data, next: more ? Buffer.from(positionOf(last)).toString('base64url') : null },
  };
}

function write(call: Call): Reply {
  const { method, copies, claims, body } = call;
  const held = records.get(call.id);
  const partition = claims?.partition ?? textIn(body, 'owner_id') ?? held?.owner_id ?? call.partition;
  const missing = held === undefined || held.deleted_at !== null;
  if (held !== undefined && held.owner_id !== partition) return problem(403, 'not-yours');
  if (method === 'DELETE' ? missing : method === 'PUT' ? !copies && missing : method !== 'POST') {
    return problem(404, 'not-found');
  }
  const author: Author = { access: copies ? 'copy' : 'user', ...(claims && { epoch: claims.epoch }) };
  const refused = askGuard(claims);
  if (refused !== undefined) return refused;
  if (method === 'DELETE') {
    const { owner_id, text, id } = held as Item;
    records.keep({ id, owner_id, text, token: call.token }, author, true);
    return { status: 204 };
  }
  const id = method === 'POST' ? records.newId() : call.id;
  const fields = {
    id,
    owner_id: partition,
    token: textIn(body, 'token') ?? '',
    text: textIn(body, 'text') ?? '',
  };
  return { status: method === 'POST' ? 201 : 200, body: records.keep(fields, author) };
}

/** The guard's own rule; nothing runs between its answer and the write. */
function askGuard(claims: GuardClaims | undefined): Reply | undefined {
  if (claims === undefined) return undefined;
  if (claims.access === 'read') return problem(403, 'read-access');
  const { partition, access, epoch } = claims;
  const verdict = guardVerdict(rows.get(partition) ?? unknownToGuard, access, epoch);
  if (!verdict.accept) return problem(409, verdict.code);
  rows.set(partition, verdict.row);
  return undefined;
}

async function readJson(request: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  try {
    return JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function textIn(body: Record<string, unknown>, name: string): string | undefined {
  const value = body[name];
  return typeof value === 'string' ? value : undefined;
}

function problem(status: number, code: string): Reply {
  return {
    status,
    body: { status, code, title: code, detail: 'The store refused this; nothing was changed.' },
  };
}

function reply(response: ServerResponse, { status, body }: Reply): void {
  if (response.destroyed) return;
  if (body === undefined) response.writeHead(status).end();
  else response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function pause(forMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, forMs)));
}

process.on('message', (order) => faults.obey(order as StoreOrder));
// Who started it has gone.
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
const server = createServer((request, response) => {
  answer(request, response).catch(() => response.destroy());
});
server.keepAliveTimeout = 60_000;
server.listen(Number(values.port), '127.0.0.1', () =>
  process.stdout.write(`${store} listens on ${values.port}\n`),
);
