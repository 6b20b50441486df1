/**
 * What a coordinator that dies costs users whose partitions it had fenced, with default settings: SIGKILL of a real
 * process in the middle of its catch-ups, and one write to each fenced partition, sent at once and waited for. A
 * second coordinator stands by and goes on with the flip.
 *
 *   node bench/dead-coordinator.ts [--members 3] [--partitions 600] [--batch 100] [--json FILE]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { request } from 'undici';
import { keys } from '../src/ledger/connection.ts';
import { parseChange } from '../src/ledger/feed.ts';
import { parseRecord } from '../src/ledger/records.ts';
import { judge, sayJudgement } from './asked.ts';
import { machine } from './machine.ts';
import { ask, ended, type Flip, openStage } from './stage.ts';
import { quantile } from './statistics.ts';

const { values } = parseArgs({
  options: {
    members: { type: 'string', default: '3' },
    partitions: { type: 'string', default: '600' },
    batch: { type: 'string', default: '100' },
    json: { type: 'string' },
  },
});
const fenceMs = 3_000;
const partitions = Array.from({ length: Number(values.partitions) }, (_, at) => `u${at}`);
const stage = await openStage({
  ...{ members: Number(values.members), partitions, batch: Number(values.batch), copied: true },
});
const redis = 'path' in stage.redis ? new Redis(stage.redis.path) : new Redis(stage.redis.url);
try {
  const first = await stage.startAdmin();
  const standby = await stage.startAdmin();
  const order = { cohort: 'all', to: 'app', reason: 'bench' };
  const { id } = await ask<Flip>(`${first.url}/v1/flips`, order);
  const committed = async (): Promise<number> => (await ask<Flip>(`${standby.url}/v1/flips/${id}`)).committed;
  while ((await committed()) < partitions.length / 10) await pause(5);
  // From here on the catch-ups hang, so that their fences stand when the coordinator dies.
  stage.legacy.fallSilent();
  while ((await fenced()).size === 0) await pause(5);
  await pause(300);
  const victims = await fenced();
  const killedMs = Date.now();
  first.process.kill('SIGKILL');
  await ended(first.process);
  const waits = await Promise.all(
    [...victims].map(async ([owner, fencedAtMs], at) => {
      const answer = await request(`${stage.proxies[at % stage.proxies.length]}/notes/${owner}-1`, {
        method: 'PUT',
        headers: { 'x-user': owner, 'content-type': 'application/json' },
        body: JSON.stringify({ id: `${owner}-1`, owner, text: 'after the death' }),
      });
      await answer.body.dump();
      return { status: answer.statusCode, overMs: Date.now() - fencedAtMs - fenceMs };
    }),
  );
  stage.legacy.speakAgain();
  const before = await committed();
  while ((await committed()) === before) await pause(10);
  const onMs = Date.now() - killedMs;
  const flip = await untilEnded(standby.url, id);
  const overMs = waits.map((wait) => wait.overMs).toSorted((a, b) => a - b);
  const reopened = await reopenedAt(victims);
  const reopenedMs = [...victims]
    .map(([owner, fencedAtMs]) => (reopened.get(owner) ?? Number.NaN) - fencedAtMs - fenceMs)
    .toSorted((a, b) => a - b);
  const failed = waits.filter(({ status }) => status !== 200).length;
  const result = {
    ...{ fenced: victims.size, failed, goesOnMs: onMs, state: flip.state, committed: flip.committed },
    reopenedOverDeadlineMs: { p50: quantile(reopenedMs, 0.5), max: quantile(reopenedMs, 1) },
    overDeadlineMs: { p50: quantile(overMs, 0.5), max: quantile(overMs, 1) },
  };
  process.stdout.write(
    `${victims.size} fenced partitions, coordinator killed: their users' writes were answered ` +
      `p50 ${result.overDeadlineMs.p50} ms, max ${result.overDeadlineMs.max} ms after the fence deadline (${fenceMs} ms; ` +
      `reopened in the ledger: p50 ${result.reopenedOverDeadlineMs.p50} ms, max ${result.reopenedOverDeadlineMs.max} ms), ` +
      `${failed} failed; the second coordinator went on ${onMs} ms after the kill: ` +
      `${flip.committed} of ${partitions.length} moved, ${flip.aborted} given up, ${flip.state}\n`,
  );
  const judgement = judge('coordinator-death', result.overDeadlineMs.max);
  process.stdout.write(`${judgement.what}: ${sayJudgement(judgement)}\n`);
  if (failed > 0 || flip.state !== 'completed') process.exitCode = 1;
  if (values.json !== undefined) {
    const all = { machine, ...result, judgements: [judgement] };
    writeFileSync(values.json, `${JSON.stringify(all, null, 2)}\n`);
  }
} finally {
  redis.disconnect();
  await stage.stop();
}

/** Partition → when it was fenced, by Redis's clock, which on one machine is everybody's. */
async function fenced(): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>();
  for (const [partition, text] of Object.entries(await redis.hgetall(keys.partitions))) {
    const { ownership, changedAtMs } = parseRecord(text);
    if (ownership.phase === 'fenced') found.set(partition, changedAtMs);
  }
  return found;
}

/** When each was opened again after that, from the ledger's stream. */
async function reopenedAt(since: ReadonlyMap<string, number>): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>();
  for (const [id, fields] of await redis.xrange(keys.changes, '-', '+')) {
    const change = parseChange(id, fields);
    if (change.kind !== 'ownership') continue;
    const { partition, after, atMs } = change;
    const fencedAtMs = since.get(partition);
    if (fencedAtMs === undefined || atMs <= fencedAtMs || after.phase !== 'open') continue;
    if (!found.has(partition)) found.set(partition, atMs);
  }
  return found;
}

async function untilEnded(admin: string, flip: string): Promise<Flip> {
  for (;;) {
    const status = await ask<Flip>(`${admin}/v1/flips/${flip}`);
    if (['completed', 'failed', 'aborted'].includes(status.state)) return status;
    await pause(100);
  }
}

function pause(waitMs: number): Promise<void> {
  return new Promise((done) => setTimeout(done, waitMs));
}
