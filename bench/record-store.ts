/**
 * A store of records in memory, as a process of its own: list by page, single records, and many in one call.
 *
 *   node bench/record-store.ts [--records N] [--partitions P]
 *
 * Prints its address. It begins with N records (id `r<number>`, owner `user-<number mod P>`).
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parseArgs } from 'node:util';

interface Kept {
  readonly owner: string;
  readonly text: string;
}

const { values } = parseArgs({
  options: { records: { type: 'string', default: '0' }, partitions: { type: 'string', default: '1' } },
});
const pageMax = 1_000;
const records = new Map<string, Kept>();
/** In the order of their creation; a deleted one leaves a gap, so that places in the list stay what they are. */
const order: (string | undefined)[] = [];
const places = new Map<string, number>();
const byOwner = new Map<string, Set<string>>();

function set(id: string, owner: string, text: string): void {
  const before = records.get(id);
  if (before === undefined) places.set(id, order.push(id) - 1);
  else if (before.owner !== owner) byOwner.get(before.owner)?.delete(id);
  records.set(id, { owner, text });
  const own = byOwner.get(owner) ?? new Set();
  byOwner.set(owner, own.add(id));
}

function remove(id: string): void {
  const before = records.get(id);
  if (before === undefined) return;
  records.delete(id);
  byOwner.get(before.owner)?.delete(id);
  order[places.get(id) ?? 0] = undefined;
  places.delete(id);
}

function put(record: { readonly id: string; readonly owner: string }): void {
  set(record.id, record.owner, JSON.stringify(record));
}

for (let at = 0; at < Number(values.records); at += 1) {
  const owner = `user-${at % Number(values.partitions)}`;
  const minute = String(at % 60).padStart(2, '0');
  const fields = { title: `appointment ${at}`, place: `room ${at % 97}`, note: 'bring the papers' };
  const record = { id: `r${at}`, owner, starts: `2026-05-04T10:${minute}:00Z`, ...fields };
  put(record);
}

function list(query: URLSearchParams): string {
  const owner = query.get('owner');
  if (owner !== null) return page([...(byOwner.get(owner) ?? [])], 'null');
  const from = Number(query.get('cursor') ?? 0);
  const to = from + pageMax;
  const ids = order.slice(from, to).filter((id) => id !== undefined);
  return page(ids, to < order.length ? String(to) : 'null');
}

function page(ids: readonly string[], next: string): string {
  return `{"data":[${ids.map((id) => records.get(id)?.text ?? 'null').join(',')}],"next":${next}}`;
}

function answer(response: ServerResponse, status: number, text: string): void {
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  response.writeHead(status, { ...headers, 'x-total-count': String(records.size) }).end(text);
}

function take(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown;
    for (const record of Array.isArray(body) ? body : [body]) put(record as { id: string; owner: string });
    answer(response, 200, '{}');
  });
}

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://store');
  const id = decodeURIComponent(url.pathname.split('/')[2] ?? '');
  if (request.method === 'PUT') take(request, response);
  else if (id === '') answer(response, 200, list(url.searchParams));
  else if (request.method === 'DELETE') {
    remove(id);
    answer(response, 200, '{}');
  } else answer(response, records.has(id) ? 200 : 404, records.get(id)?.text ?? '{}');
});
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`store http://127.0.0.1:${(server.address() as AddressInfo).port}\n`);
});
process.once('disconnect', () => process.exit(0));
