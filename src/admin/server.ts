/**
 * The admin API over HTTP: the API below /v1, and beside it what is open to everybody who reaches the port.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { within } from '../pause.ts';
import { brakeOperations } from './brakes.ts';
import { cohortOperations } from './cohorts.ts';
import { directoryOperations } from './directory.ts';
import { answerErrors, apiRouter, refuse } from './dispatch.ts';
import { doubtOperations } from './doubts.ts';
import { AuditWatchers } from './events.ts';
import { erasureOperations } from './erasures.ts';
import { flipOperations } from './flips.ts';
import { linkOperations } from './links.ts';
import { memberOperations } from './members.ts';
import { createMetrics } from './metrics.ts';
import { partitionOperations } from './partitions.ts';
import type { AdminParts } from './parts.ts';
import { recoveryOperations } from './recovery.ts';
import { frontPage } from './front-page.ts';
import { registryOperations } from './registry.ts';
import { rollbackWindowOperations } from './rollback-window.ts';
import { stateOperations } from './state.ts';
import { strayOperations } from './strays.ts';
import { syncSteeringOperations } from './sync-steering.ts';
import { verificationOperations } from './verifications.ts';

const readyMs = 2_000;

export interface Admin {
  /** Throws the socket's error (EADDRINUSE, …) when the address cannot be had. */
  listen(): Promise<{ host: string; port: number }>;
  /** Ends event streams, and closes every connection. */
  stop(): Promise<void>;
}

export function createAdmin(parts: AdminParts): Admin {
  const events = new AuditWatchers(parts.audit);
  const operations = [
    ...partitionOperations(parts),
    ...registryOperations(parts),
    ...directoryOperations(parts),
    ...doubtOperations(parts),
    ...linkOperations(parts),
    ...cohortOperations(parts),
    ...flipOperations(parts),
    ...verificationOperations(parts),
    ...strayOperations(parts),
    ...erasureOperations(parts),
    ...stateOperations(parts),
    ...brakeOperations(parts),
    ...syncSteeringOperations(parts),
    ...rollbackWindowOperations(parts),
    ...memberOperations(parts),
    ...recoveryOperations(parts),
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
    // Undefined where the answer is late or fails.
    const asked = parts.ledger.regression().then(
      (answer) => ({ answer }),
      () => undefined,
    );
    const state = await within(asked, readyMs);
    if (state === undefined) {
      response.status(503).json({ status: 'unavailable', detail: 'The ledger does not answer.' });
    } else if (state.answer !== undefined) {
      const detail = `The ledger lost data: ${state.answer.detail}. Nothing moves until it is restored.`;
      response.status(503).json({ status: 'ledger-regressed', detail });
    } else response.json({ status: 'ok' });
  });
  app.get('/metrics', async (_request, response) => {
    response.type('text/plain; version=0.0.4').send(await metrics());
  });
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
