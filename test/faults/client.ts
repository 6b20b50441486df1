/** One HTTP request of a user, sent once, and what can be said about its outcome. */
import { Agent, type IncomingMessage, request as startRequest } from 'node:http';
import { bothStores, type Ended } from './words.ts';

export interface Sending {
  readonly port: number;
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly user: string;
  readonly partition: string;
  readonly token?: string | undefined;
  readonly body?: object | undefined;
}

export type Outcome = Omit<Ended, 'atMs' | 'request'>;

/** Longer than a hold and a write together; after it the client gives up. */
const patienceMs = 12_000;
const agent = new Agent({ keepAlive: true, maxSockets: 200 });

/** Never rejects. node:http repeats nothing by itself, also not on a connection that turns out dead. */
export function send(sending: Sending): Promise<Outcome> {
  const { port, method, path, user, partition, token } = sending;
  const body = sending.body === undefined ? undefined : JSON.stringify(sending.body);
  const headers = {
    'x-user': user,
    'x-partition': partition,
    ...(token === undefined ? {} : { 'x-token': token }),
    ...(body === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) }),
  };
  return new Promise((resolve) => {
    const request = startRequest({ agent, host: '127.0.0.1', port, method, path, headers });
    const broken = (error: Error & { code?: string }): void => {
      const code = error.code ?? error.message;
      resolve({ step: code === 'ECONNREFUSED' ? 'fail' : 'unknown', code });
    };
    const timer = setTimeout(
      () => request.destroy(Object.assign(new Error(), { code: 'client-timeout' })),
      patienceMs,
    );
    request.once('error', broken);
    request.once('close', () => clearTimeout(timer));
    request.once('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('error', broken);
      response.once('aborted', () => broken(new Error('aborted')));
      response.once('end', () => resolve(judge(response, text)));
    });
    request.end(body);
  });
}

function judge(response: IncomingMessage, text: string): Outcome {
  const status = response.statusCode ?? 0;
  const by = bothStores.find((store) => store === response.headers['onewriter-store']);
  const epoch = response.headers['onewriter-epoch'];
  const json = parsed(text);
  const said = {
    status,
    ...(by === undefined ? {} : { store: by }),
    ...(typeof epoch === 'string' ? { epoch: Number(epoch) } : {}),
    ...(typeof json['code'] === 'string' ? { code: json['code'] } : {}),
  };
  if (status >= 200 && status < 300) {
    return {
      step: 'ok',
      ...said,
      ...(typeof json['id'] === 'string' ? { record: json['id'] } : {}),
      ...(typeof json['token'] === 'string' ? { seen: json['token'] } : {}),
    };
  }
  const problem = (response.headers['content-type'] ?? '').startsWith('application/problem+json');
  const refusedByProxy = problem && json['sent'] === 'no';
  // A whole answer of a store that refuses: both of ours change nothing then.
  const refusedByStore = said.store !== undefined && status >= 400 && status < 500;
  return { step: refusedByProxy || refusedByStore ? 'fail' : 'unknown', ...said };
}

function parsed(text: string): Record<string, unknown> {
  try {
    const json = JSON.parse(text) as unknown;
    return typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
