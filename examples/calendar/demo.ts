/**
 * A migration from end to end, under load: everything as separate processes, users at work, cohorts moving,
 * one flip aborted, one proxy killed. Then the users' journal is held against both stores, and a table says
 * what was found. Exits with 1 if any promise was broken.
 *
 *   scripts/demo [--stay] [--platform calendar|json-server] [--rate 150]
 */
import { rm } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { checkRun, printEvidence } from './demo-evidence.ts';
import { startScene, type Scene } from './demo-scene.ts';
import { eventually } from './processes.ts';

interface FlipStatus {
  readonly id: string;
  readonly state: string;
  readonly detail: string;
  readonly total: number;
  readonly committed: number;
  readonly aborted: number;
  readonly pending: number;
  readonly pauseMs?: { readonly p50: number; readonly p99: number; readonly max: number };
}

const usage = 'Usage: scripts/demo [--stay] [--platform calendar|json-server] [--rate 150]\n';
const values = readFlags();
const platform = values.platform ?? 'calendar';
if (platform !== 'calendar' && platform !== 'json-server') {
  process.stderr.write(`--platform must be calendar or json-server, not ${platform}\n`);
  process.exit(1);
}
const rate = Number(values.rate ?? 150);
if (!(rate > 0 && rate <= 5_000)) {
  process.stderr.write(`--rate must be a number of requests per second, not ${values.rate}\n`);
  process.exit(1);
}

const startedMs = performance.now();
const say = (line: string): void => {
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1).padStart(5);
  process.stdout.write(`${seconds}s  ${line}\n`);
};

const scene = await startScene({
  platform,
  rate,
  say,
});
const interrupt = (): void => void scene.stop().finally(() => process.exit(130));
process.once('SIGINT', interrupt);
process.once('SIGTERM', interrupt);
let broken: boolean;
try {
  broken = await play(scene);
  if (values.stay === true) await stay(scene);
} finally {
  await scene.stop();
}
if (!broken) await rm(scene.directory, { recursive: true, force: true });
process.exit(broken ? 1 : 0);

/** The story; true when a promise was broken. */
async function play(stage: Scene): Promise<boolean> {
  const flips: FlipStatus[] = [];
  await stage.workFor(2_000);

  say('flip 1: the pilot cohort, as an operator does it');
  const pilot = await stage.onewriter(
    'flip',
    '--cohort',
    'pilot',
    '--to',
    'app',
    '--reason',
    'pilot',
    '--yes',
  );
  if (pilot !== 0) throw new Error(`the pilot flip ended with exit code ${pilot}`);
  flips.push(...(await stage.admin<{ flips: FlipStatus[] }>('GET', '/v1/flips')).flips);

  say('flip 2: twenty users who are away; nothing of theirs is in flight');
  const idle = await ended(stage, await startFlip(stage, 'idle'));
  flips.push(idle);

  say('flip 3: a tenth of the users; a proxy is killed in the middle of it');
  const tenth = await startFlip(stage, 'tenth');
  await eventually(
    'some of the cohort has moved',
    async () => (await look(stage, tenth)).committed > 0,
    20_000,
  );
  const killed = stage.killProxy();
  say(`        killed ${killed}; the flip waits until it is proven gone, then goes on`);
  flips.push(await ended(stage, tenth));

  say('flip 4: a third of the users; aborted on purpose on the way');
  const third = await startFlip(stage, 'third');
  await eventually(
    'some of the cohort has moved',
    async () => (await look(stage, third)).committed > 1,
    20_000,
  );
  await stage.admin('POST', `/v1/flips/${third.id}/abort`, { reason: 'on purpose' });
  flips.push(await ended(stage, third));

  await stage.workFor(2_000);
  say('the users go home; what legacy still owns is compared with its copy');
  await stage.stopTraffic();
  await stage.caughtUp();
  const verified = await stage.onewriter('verify', '--cohort', 'third');
  await stage.onewriter('status');

  const evidence = await checkRun(stage);
  const seconds = (performance.now() - startedMs) / 1000;
  const broke = printEvidence({ evidence, flips, idle: idle.pauseMs, verified, seconds, platform });
  if (broke) say(`journal, evidence and logs are in ${stage.directory}`);
  return broke;
}

function readFlags(): { stay?: boolean; help?: boolean; platform?: string; rate?: string } {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  try {
    const parsed = parseArgs({ options: { stay: flag, help: flag, platform: text, rate: text } }).values;
    if (parsed.help !== true) return { ...parsed };
    process.stdout.write(usage);
    process.exit(0);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
    process.exit(1);
  }
}

function startFlip(stage: Scene, cohort: string): Promise<FlipStatus> {
  return stage.admin('POST', '/v1/flips', { cohort, to: 'app', reason: 'demo' });
}

function look(stage: Scene, flip: FlipStatus): Promise<FlipStatus> {
  return stage.admin('GET', `/v1/flips/${flip.id}`);
}

async function ended(stage: Scene, flip: FlipStatus): Promise<FlipStatus> {
  const over = ['completed', 'aborted', 'failed'];
  const last = await eventually(
    `flip of ${flip.id} ends`,
    async () => {
      const status = await look(stage, flip);
      return over.includes(status.state) && status;
    },
    60_000,
  );
  say(
    `        ${last.state}: ${last.committed} of ${last.total} moved, ${last.pending} left where they were`,
  );
  return last;
}

async function stay(stage: Scene): Promise<void> {
  say('everything keeps running; end it with Ctrl-C. Try, in another terminal:');
  for (const line of stage.hints()) process.stdout.write(`  ${line}\n`);
  await new Promise(() => undefined);
}
