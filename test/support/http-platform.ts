/** A bare HTTP server for tests that need more of a platform than rest-store.ts has: every call is seen as it came. */
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface PlatformCall {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

export interface PlatformAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Text is sent as it is, anything else as JSON. */
  readonly body?: unknown;
}

export interface HttpPlatform {
  readonly url: string;
  readonly calls: PlatformCall[];
  answer: (call: PlatformCall) => PlatformAnswer | Promise<PlatformAnswer>;
  stop(): Promise<void>;
}

export async function startHttpPlatform(answer: HttpPlatform['answer']): Promise<HttpPlatform> {
  const calls: PlatformCall[] = [];
  const server = createServer((request, response) => {
    void (async () => {
      const url = new URL(request.url ?? '/', 'http://platform');
      let text = '';
      for await (const chunk of request) text += String(chunk);
      const call = {
        ...{ method: request.method ?? '', path: decodeURIComponent(url.pathname) },
        ...{ query: url.searchParams, headers: request.headers, text },
      };
      calls.push(call);
      const { status = 200, headers = {}, body } = await platform.answer(call);
      const sent = typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body);
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(sent);
    })();
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const platform: HttpPlatform = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    answer,
    stop: async () => {
      server.closeAllConnections();
      await new Promise<void>((closed) => server.close(() => closed()));
    },
  };
  return platform;
}
