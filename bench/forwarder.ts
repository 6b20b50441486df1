/**
 * One of the peers that are Node programs, as a process of its own: `node bench/forwarder.ts NAME UPSTREAM-URL`.
 * Each as its own documents advise for speed: connections are kept, and as many as onewriter's default. Prints its port.
 */
import fastifyProxy from '@fastify/http-proxy';
import { once } from 'node:events';
import { Agent, createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import fastify from 'fastify';
import { createProxyMiddleware } from 'http-proxy-middleware';
import { Pool } from 'undici';

const connections = 256;

/** Nothing but the client library: what a forwarder on it can reach at most. */
function bareUndici(url: string): Server {
  const pool = new Pool(url, { connections, pipelining: 1, allowH2: false });
  const dropped = new Set(['connection', 'keep-alive', 'transfer-encoding', 'host', 'expect', 'upgrade']);
  return createServer((request, response) => {
    const headers: string[] = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      const name = request.rawHeaders[at] ?? '';
      if (!dropped.has(name.toLowerCase())) headers.push(name, request.rawHeaders[at + 1] ?? '');
    }
    const { method = 'GET', url: path = '/' } = request;
    const body = request.headers['content-length'] === undefined ? null : request;
    const gone = new Error('the client went away');
    let started: { abort: (reason: Error) => void } | undefined;
    response.once('close', () => {
      if (!response.writableFinished) started?.abort(gone);
    });
    pool.dispatch(
      { method, path, headers, body },
      {
        onRequestStart: (controller) => {
          started = controller;
          // Also while it waited for a connection: else that would wait for a body that never comes.
          if (response.destroyed) controller.abort(gone);
        },
        onResponseStart: (controller, status) => {
          const raw = (controller.rawHeaders as Buffer[]).map((value) => value.toString('latin1'));
          response.writeHead(status, raw);
        },
        onResponseData: (controller, chunk) => {
          if (response.write(chunk)) return;
          controller.pause();
          response.once('drain', () => controller.resume());
        },
        onResponseEnd: () => void response.end(),
        onResponseError: () => void response.destroy(),
      },
    );
  });
}

function expressWithMiddleware(url: string): Server {
  const app = express();
  app.disable('x-powered-by');
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  app.use(createProxyMiddleware({ target: url, agent, changeOrigin: true, xfwd: true }));
  return createServer(app);
}

async function fastifyHttpProxy(url: string): Promise<Server> {
  const app = fastify({ logger: false });
  await app.register(fastifyProxy, { upstream: url, undici: { connections, pipelining: 1 } });
  await app.ready();
  return app.server;
}

const [name = '', url = ''] = process.argv.slice(2);
const makes: Readonly<Record<string, (url: string) => Server | Promise<Server>>> = {
  undici: bareUndici,
  'express-hpm': expressWithMiddleware,
  'fastify-proxy': fastifyHttpProxy,
};
const make = makes[name];
if (make === undefined) throw new Error(`there is no forwarder "${name}"`);
const server = await make(url);
server.listen(0, '127.0.0.1', 4_096);
await once(server, 'listening');
process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
