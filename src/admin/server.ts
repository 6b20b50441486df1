/**
 * The admin API over HTTP: the API below /v1, and beside it what is open to everybody who reaches the port.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { cohortOperations } from './cohorts.ts';
import { answerErrors, apiRouter, refuse } from './dispatch.ts';
import { EventStreams } from './events.ts';
import { flipOperations } from './flips.ts';
import { createMetrics } from './metrics.ts';
import { partitionOperations } from './partitions.ts';
import type { AdminParts } from './parts.ts';
import { frontPage } from './front-page.ts';
import { stateOperations } from './state.ts';
import { Verifications, verificationOperations } from './verifications.ts';

const readyMs = 2_000;

export interface Admin {
  /** Throws the socket's error (EADDRINUSE, …) when the address cannot be had. */
  listen(): Promise<{ host: string; port: number }>;
  /** Ends event streams and verifications, and closes every connection. */
  stop(): Promise<void>;
}

export function createAdmin(parts: AdminParts): Admin {
  const recheckMs = parts.recheckMs ?? 2 * parts.config.sync.pollMs;
  const verifications = new Verifications({ copies: parts.copies, log: parts.log, recheckMs });
  const events = new EventStreams(parts.audit);
  const operations = [
    ...partitionOperations(parts),
    ...cohortOperations(parts),
    ...flipOperations(parts),
    ...verificationOperations(parts, verifications),
    ...stateOperations(parts),
  ];
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('query parser', 'simple');
  app.use((_request, response, next) => {
    response.set({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
    next();
  });
  openEndpoints(app, parts);
  app.use('/v1', apiRouter(parts, operations, events));
  app.use((request, response) => {
    refuse(response, {
      code: 'no-such-path',
      detail: `Nothing is at ${request.path}; the API is below /v1.`,
    });
  });
  app.use(answerErrors(parts));
  const server = createServer(app);
  return {
    listen: () => listen(server, parts.config.admin),
    async stop() {
      events.stop();
      await verifications.stop();
      await close(server);
    },
  };
}

function openEndpoints(app: express.Express, parts: AdminParts): void {
  const metrics = createMetrics(parts);
  app.get('/', (_request, response) => {
    response.set('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'");
    response.type('html').send(frontPage);
  });
  app.get('/healthz', (_request, response) => {
    response.json({ status: 'ok' });
  });
  app.get('/readyz', async (_request, response) => {
    const answered = await within(readyMs, parts.ledger.nowMs());
    if (answered) response.json({ status: 'ok' });
    else response.status(503).json({ status: 'unavailable', detail: 'The ledger does not answer.' });
  });
  app.get('/metrics', async (_request, response) => {
    response.type('text/plain; version=0.0.4').send(await metrics());
  });
}

async function within(limitMs: number, answer: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), limitMs);
  });
  const inTime = answer.then(
    () => true,
    () => false,
  );
  try {
    return await Promise.race([inTime, late]);
  } finally {
    clearTimeout(timer);
  }
}

function listen(server: Server, at: { host: string; port: number }): Promise<{ host: string; port: number }> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(at.port, at.host, () => {
      server.removeListener('error', reject);
      resolve({ host: at.host, port: (server.address() as AddressInfo).port });
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
