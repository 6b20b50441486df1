/**
 * What each of several proxy processes on one port runs: a proxy and a member, under orders of the process that
 * started it. When that one is gone it ends, in order: nobody would tell it what to do any more.
 */
import cluster from 'node:cluster';
import { startRole, type Running } from './compose.ts';
import { jsonLog, type Log } from './log.ts';
import { type ProcessOrder, pulseMs, type Report, tellError } from './processes/messages.ts';

// A reader of the log that went away ends no traffic.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
const write = jsonLog((line) => process.stderr.write(line));
const log: Log = (level, event, fields) => write(level, event, { ...fields, process: process.pid });

// Nobody knows what is still right then, so it ends at once, and another is started.
process.on('uncaughtException', (error) => {
  log('error', 'process.bug', { error: error instanceof Error ? error.stack : String(error) });
  process.exit(1);
});

let starting: Promise<Running> | undefined;
let running: Running | undefined;
let endWithinMs = 0;
let ending = false;

process.on('message', (order: ProcessOrder) => {
  void carryOut(order);
});
// Node would end it at once, in the middle of everything.
if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true;
process.on('disconnect', () => {
  if (!ending) {
    log('error', 'process.alone', { detail: 'The process that started this one is gone, so it ends, too.' });
  }
  void end();
});
process.on('SIGTERM', () => {
  if (ending) process.exit(143);
  void end();
});
// A terminal sends these to all; the process that started this one says what they mean.
for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
setInterval(() => tell({ report: 'pulse', counters: running?.proxy?.counters() ?? {} }), pulseMs);

async function carryOut(order: ProcessOrder): Promise<void> {
  switch (order.order) {
    case 'start':
      endWithinMs = order.endWithinMs;
      starting = startRole('proxy', { ...order.rules, redis: order.redis, env: process.env, log });
      await begin(starting);
      break;
    case 'name-obstacle': {
      const detail = running?.proxy?.obstacle(order.rules);
      tell({ report: 'obstacle', detail });
      break;
    }
    case 'change':
      tell({ report: 'changed', changed: (await running?.reload(order.rules)) === true });
      break;
    case 'renew-certificate':
      running?.renewCertificate();
      break;
    case 'stop':
      await end();
      break;
  }
}

async function begin(role: Promise<Running>): Promise<void> {
  try {
    running = await role;
    tell({ report: 'ready', url: running.addresses['proxy'] ?? '', warnings: running.warnings });
  } catch (error) {
    tell({ report: 'not-started', error: tellError(error) }, () => process.exit(1));
  }
}

/** What is under way may end, within the time that the start order named. */
async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  setTimeout(() => process.exit(1), endWithinMs);
  const role = await starting?.catch(() => undefined);
  await role?.stop();
  process.exit(0);
}

/** Nobody may be there to hear it. */
function tell(report: Report, told: () => void = () => undefined): void {
  if (process.connected) process.send?.(report, undefined, {}, told);
  else told();
}
