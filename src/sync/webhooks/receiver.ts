/**
 * Takes deliveries: POST /webhooks/legacy and /webhooks/app. A delivery is a hint and nothing else; it is answered 204
 * when the records that it names are stored, and with 503 where they could not be, so that the sender comes again.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Config, WebhookConfig } from '../../config/schema.ts';
import type { StoreName } from '../../core/ownership.ts';
import type { Json } from '../../core/records.ts';
import { type Log, sentenceOf } from '../../log.ts';
import { parseExactly } from '../../stores/rest/exact-json.ts';
import { deliveryIdOf, recordsIn } from './events.ts';
import type { Inbox } from './inbox.ts';
import { whyRefused } from './refusals.ts';
import { maySign, type Proof, proofOf } from './signature.ts';

export interface ReceiverParts {
  readonly at: NonNullable<Config['webhooks']>;
  readonly webhooks: Readonly<Partial<Record<StoreName, WebhookConfig>>>;
  readonly inbox: Inbox;
  readonly onStored: () => void;
  readonly log: Log;
}

interface Answer {
  readonly status: number;
  readonly code?: string;
  readonly detail?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Anybody can connect: what one of them can hold on to is bounded. */
const connectionsMax = 200;
const headTimeoutMs = 5_000;
const requestTimeoutMs = 15_000;
const reportEveryMs = 10_000;

export class WebhookReceiver {
  readonly #parts: ReceiverParts;
  readonly #server: Server;
  readonly #refused = new Map<string, number>();
  #reportTimer: NodeJS.Timeout | undefined;

  constructor(parts: ReceiverParts) {
    this.#parts = parts;
    this.#server = createServer(
      { headersTimeout: headTimeoutMs, requestTimeout: requestTimeoutMs, connectionsCheckingInterval: 1_000 },
      (request, response) => void this.#answer(request, response),
    );
    this.#server.maxConnections = connectionsMax;
  }

  /** Throws the socket's error (EADDRINUSE, …) when the address cannot be had. */
  listen(): Promise<{ host: string; port: number }> {
    const { host, port } = this.#parts.at;
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.removeListener('error', reject);
        resolve({ host, port: (this.#server.address() as AddressInfo).port });
      });
    });
  }

  stop(): Promise<void> {
    clearTimeout(this.#reportTimer);
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#take(request);
    } catch (error) {
      // Its sender has gone, or something of ours is broken; either way it must come again.
      this.#parts.log('warn', 'sync.delivery-failed', { detail: sentenceOf(error) });
      answer = unavailable('The delivery could not be taken. Send it again.');
    }
    if (response.destroyed) return;
    const { status, code, detail, headers = {} } = answer;
    if (status === 204) response.writeHead(204).end();
    else {
      const body = JSON.stringify({ type: 'about:blank', title: code, status, code, detail });
      response.writeHead(status, { 'content-type': 'application/problem+json', ...headers }).end(body);
    }
  }

  async #take(request: IncomingMessage): Promise<Answer> {
    const store = storeIn(request.url ?? '');
    const webhook = store && this.#parts.webhooks[store];
    if (store === undefined || webhook === undefined) {
      return refusal(404, 'no-such-path', 'Deliveries are taken at /webhooks/legacy and /webhooks/app.');
    }
    if (request.method !== 'POST') {
      const only = { allow: 'POST' };
      return { ...refusal(405, 'only-post', 'A delivery is a POST.'), headers: only };
    }
    const canBeProven = maySign(webhook.signatures, request.headers);
    const body = await bodyOf(request, this.#parts.at.bodyBytes, canBeProven);
    if (body === undefined) {
      this.#noteRefused(store, 'too-large');
      const detail = `A delivery may have ${this.#parts.at.bodyBytes} bytes (webhooks.bodyBytes). Nothing was stored.`;
      return { ...refusal(413, 'too-large', detail), headers: { connection: 'close' } };
    }
    const { headers } = request;
    const proof = canBeProven ? proofOf(webhook.signatures, { headers, body }, Date.now()) : 'unsigned';
    if (proof !== 'proven') {
      this.#noteRefused(store, proof);
      return refusal(401, proof, sentences[proof]);
    }
    const json = parsed(body, headers['content-encoding']);
    if (json === undefined) {
      this.#noteRefused(store, 'not-json');
      return refusal(400, 'not-json', 'The body is not JSON as it stands. Nothing was stored.');
    }
    return this.#store(store, webhook, request, json);
  }

  async #store(
    store: StoreName,
    webhook: WebhookConfig,
    { headers }: IncomingMessage,
    json: Json,
  ): Promise<Answer> {
    const { inbox, onStored, log } = this.#parts;
    const records = recordsIn(webhook.events, json);
    const delivery = deliveryIdOf(webhook, headers, json);
    try {
      const stored = await inbox.store({ store, delivery, records });
      if (stored === 'full') {
        log('warn', 'sync.inbox-full', { store });
        return unavailable('Too many records wait to be looked at. Send it again later.', 30);
      }
      // Also for a double: who stored it first may have died, or have heard of it too late.
      if (records.length > 0) onStored();
      return { status: 204 };
    } catch (error) {
      log('warn', 'sync.delivery-not-stored', { store, detail: sentenceOf(error) });
      return unavailable('The delivery could not be stored. Send it again.');
    }
  }

  /** Whoever reaches the port can be refused: it is counted at once, but told and written only now and then. */
  #noteRefused(store: StoreName, why: string): void {
    const name = `${store} ${why}`;
    this.#refused.set(name, (this.#refused.get(name) ?? 0) + 1);
    this.#reportTimer ??= setTimeout(() => this.#report(), this.#refused.size === 1 ? 100 : reportEveryMs);
  }

  #report(): void {
    this.#reportTimer = undefined;
    for (const [name, count] of this.#refused) {
      const [store, because = ''] = name.split(' ') as [StoreName, string?];
      const detail = whyRefused(store, because);
      this.#parts.log('warn', 'sync.delivery-refused', { store, because, count, detail });
      this.#parts.inbox.count(store, because, count).catch(() => undefined);
    }
    this.#refused.clear();
  }
}

const sentences: Readonly<Record<Exclude<Proof, 'proven'>, string>> = {
  unsigned: 'The delivery carries no signature that is known here. Nothing was stored.',
  wrong: 'The signature is not right. Nothing was stored. Compare the secrets on both sides.',
  'too-old': 'The signature is right, but its time is too far from now. Nothing was stored.',
};

function storeIn(target: string): StoreName | undefined {
  const path = target.split('?', 1)[0];
  if (path === '/webhooks/legacy') return 'legacy';
  return path === '/webhooks/app' ? 'app' : undefined;
}

/** Undefined where it is longer than `most`. What is not `kept` is only read to its end. */
async function bodyOf(request: IncomingMessage, most: number, kept: boolean): Promise<Buffer | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > most) return undefined;
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength;
    if (bytes > most) return undefined;
    if (kept) chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parsed(body: Buffer, encoding: string | undefined): Json | undefined {
  if (encoding !== undefined && encoding !== 'identity') return undefined;
  try {
    return parseExactly(body.toString('utf8')) as Json;
  } catch {
    return undefined;
  }
}

function refusal(status: number, code: string, detail: string): Answer {
  return { status, code, detail };
}

function unavailable(detail: string, seconds = 5): Answer {
  return { ...refusal(503, 'not-stored', detail), headers: { 'retry-after': String(seconds) } };
}
