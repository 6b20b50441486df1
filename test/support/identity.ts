/** Services that a proxy asks about credentials and keys: real HTTP servers that a test drives. */
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose';

export interface Asked {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export type ServiceAnswer = (asked: Asked, response: ServerResponse) => void;

export class TestService {
  readonly asked: Asked[] = [];
  answer: ServiceAnswer;
  readonly #server: Server;

  private constructor(server: Server, answer: ServiceAnswer) {
    this.#server = server;
    this.answer = answer;
  }

  static async start(answer: ServiceAnswer): Promise<TestService> {
    const server = createServer();
    const service = new TestService(server, answer);
    server.on('request', (request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const { method = '', url = '', headers } = request;
        const asked = { method, url, headers, body: Buffer.concat(chunks).toString() };
        service.asked.push(asked);
        service.answer(asked, response);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return service;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/me`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

export function answering(status: number, body: unknown): ServiceAnswer {
  return (_asked, response) => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };
}

/** Knows credentials by the header (or the body) that carries them. */
export function knowing(users: Readonly<Record<string, unknown>>, where = 'authorization'): ServiceAnswer {
  return (asked, response) => {
    const shown = where === 'body' ? asked.body : asked.headers[where];
    const user = typeof shown === 'string' ? users[shown] : undefined;
    if (user === undefined) answering(401, {})(asked, response);
    else answering(200, { data: { id: user } })(asked, response);
  };
}

export interface SigningKey {
  readonly jwk: JWK;
  sign(claims: Record<string, unknown>): Promise<string>;
}

/** `kid` left out: the key and its tokens carry no name. */
export async function signingKey(kid?: string): Promise<SigningKey> {
  const { publicKey, privateKey } = await generateKeyPair('ES256');
  const jwk = {
    ...(await exportJWK(publicKey)),
    use: 'sig',
    alg: 'ES256',
    ...(kid === undefined ? {} : { kid }),
  };
  const header = { alg: 'ES256', ...(kid === undefined ? {} : { kid }) };
  return { jwk, sign: async (claims) => signWith(privateKey, header, claims) };
}

async function signWith(
  key: CryptoKey,
  header: { alg: string; kid?: string },
  claims: Record<string, unknown>,
): Promise<string> {
  return new SignJWT(claims).setProtectedHeader(header).sign(key);
}
