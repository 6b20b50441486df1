/**
 * Stands in front of a platform that keeps no log and writes down every write that the platform accepted:
 * a witness for checks. `/_log` answers what it saw, `/_dump` what the platform holds.
 *
 *   node examples/calendar/recorder.ts --port 0 --target http://127.0.0.1:3000
 */
import { createServer, type IncomingMessage } from 'node:http';
import { parseArgs } from 'node:util';
import { Pool } from 'undici';
import type { AcceptedWrite, Appointment } from './appointment.ts';
import { listen, type Listening } from './network.ts';

/** Set by the connection or the framing; everything else goes through, Host too: Link headers name it. */
const ownHeaders = new Set(['connection', 'keep-alive', 'transfer-encoding', 'content-length']);

export function startRecorder(target: string, port = 0): Promise<Listening> {
  const pool = new Pool(target, { connections: 128, pipelining: 1 });
  const log: AcceptedWrite[] = [];
  const server = createServer(async (request, response) => {
    try {
      if (request.url === '/_log') return void response.end(JSON.stringify(log));
      if (request.url === '/_dump') return void response.end(JSON.stringify(await dump(pool)));
      const sent = await bodyOf(request);
      const method = request.method ?? 'GET';
      const answer = await pool.request({
        path: request.url ?? '/',
        method,
        headers: Object.fromEntries(
          Object.entries(request.headers).filter(([name]) => !ownHeaders.has(name)),
        ),
        ...(sent.length === 0 ? {} : { body: sent }),
      });
      const body = Buffer.from(await answer.body.arrayBuffer());
      if (method !== 'GET' && answer.statusCode < 300) log.push(accepted(request, sent, body));
      for (const [name, value] of Object.entries(answer.headers)) {
        if (!ownHeaders.has(name) && value !== undefined) response.setHeader(name, value);
      }
      response.writeHead(answer.statusCode).end(body);
    } catch (error) {
      response.writeHead(502).end(String(error));
    }
  });
  return listen(server, port);
}

function accepted(request: IncomingMessage, sent: Buffer, answered: Buffer): AcceptedWrite {
  const user = String(request.headers['x-user'] ?? '');
  const fields = { ...parsed(sent), ...parsed(answered) };
  const textOf = (name: string, otherwise: string): string => {
    const value = fields[name];
    return typeof value === 'string' || typeof value === 'number' ? String(value) : otherwise;
  };
  return {
    at_ms: Date.now(),
    user,
    hand: 'user',
    method: request.method as AcceptedWrite['method'],
    id: textOf('id', decodeURIComponent(request.url?.split('/').at(-1) ?? '')),
    owner_id: textOf('owner_id', user),
    title: textOf('title', ''),
  };
}

async function dump(pool: Pool): Promise<Appointment[]> {
  const answer = await pool.request({ path: '/api/appointments', method: 'GET' });
  const records = (await answer.body.json()) as (Omit<Appointment, 'id' | 'deleted_at'> & { id: unknown })[];
  return records.map((record) => ({ ...record, id: String(record.id), deleted_at: null }));
}

function parsed(body: Buffer): Record<string, unknown> {
  try {
    return JSON.parse(body.toString()) as Record<string, unknown>;
  } catch {
    return {};
  }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

if (import.meta.main) {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({ options: { port: text, target: text } });
  const { url } = await startRecorder(values.target ?? 'http://127.0.0.1:3000', Number(values.port ?? 0));
  process.stdout.write(`${JSON.stringify({ listening: url })}\n`);
}
