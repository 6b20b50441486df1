/**
 * Explores every order of events of a scenario, breadth first, so that the first violation is a shortest one.
 *
 *   node test/model/explore.ts [--scenario NAME] [--core DIRECTORY] [--depth N] [--states N]
 *     [--off RULE] [--heal-every N] [--json]
 */
import { parseArgs } from 'node:util';
import { type Core, coreDirectory, loadCore } from './core.ts';
import { cannotHeal } from './heal.ts';
import { key } from './key.ts';
import { type Scenario, scenarioNamed, scenarios, startWorld } from './scenarios.ts';
import { SeenStates } from './seen.ts';
import { actions, apply } from './steps.ts';
import type { Rules, Violation } from './types.ts';
import { nameOf, type World } from './world.ts';

export interface Exploration {
  readonly scenario: string;
  readonly states: number;
  readonly transitions: number;
  /** Steps to the farthest state. */
  readonly depth: number;
  /** Every state was explored; else a bound ended it. */
  readonly complete: boolean;
  readonly commits: number;
  readonly violation?: Violation;
  /** The steps that lead to the violation. */
  readonly trace: readonly string[];
  readonly tookMs: number;
}

export interface Bounds {
  readonly depth?: number | undefined;
  readonly states?: number | undefined;
  /** Of so many new states one is asked whether it can heal; 0 asks none. */
  readonly healEvery?: number | undefined;
}

const healEveryUsual = 100;

export function explore(
  core: Core,
  scenario: Scenario,
  rules: Partial<Rules> = {},
  bounds: Bounds = {},
): Exploration {
  const startedMs = performance.now();
  const depthMax = bounds.depth ?? Number.POSITIVE_INFINITY;
  const statesMax = bounds.states ?? Number.POSITIVE_INFINITY;
  const healEvery = bounds.healEvery ?? healEveryUsual;
  const first = startWorld(core, scenario, rules);
  const seen = new SeenStates();
  seen.add(key(first), 0, 0);
  let level: World[] = [first];
  let levelFrom = 0;
  let transitions = 0;
  let depth = 0;
  let commits = 0;
  const report = (complete: boolean, violation?: Violation, trace: readonly string[] = []): Exploration => ({
    ...{ scenario: scenario.name, states: seen.size, transitions, depth, complete, commits, trace },
    ...(violation === undefined ? {} : { violation }),
    tookMs: performance.now() - startedMs,
  });
  while (level.length > 0) {
    if (depth >= depthMax) return report(false);
    const next: World[] = [];
    const nextFrom = seen.size;
    for (let at = 0; at < level.length; at += 1) {
      const world = level[at] as World;
      const possible = actions(world);
      for (let which = 0; which < possible.length; which += 1) {
        const action = possible[which];
        if (action === undefined) continue;
        const reached = apply(world, action);
        transitions += 1;
        if (reached.violation !== undefined) {
          const steps = [...seen.pathTo(levelFrom + at), which];
          depth += 1;
          return report(false, reached.violation, traceOf(core, scenario, rules, steps));
        }
        if (!seen.add(key(reached), levelFrom + at, which)) continue;
        const sick = healEvery > 0 && seen.size % healEvery === 0 ? cannotHeal(reached) : undefined;
        if (sick !== undefined) {
          const steps = [...seen.pathTo(levelFrom + at), which];
          return report(false, { invariant: 'I7', detail: sick }, traceOf(core, scenario, rules, steps));
        }
        if (reached.commits > world.commits) commits += 1;
        next.push(reached);
      }
      // The level before is needed no more once it was looked at.
      level[at] = undefined as unknown as World;
      if (seen.size >= statesMax) return report(false);
    }
    level = next;
    levelFrom = nextFrom;
    if (next.length > 0) depth += 1;
  }
  return report(true);
}

/** Replays the steps, and says for each what it was and where the ledger stood afterwards. */
function traceOf(core: Core, scenario: Scenario, rules: Partial<Rules>, steps: readonly number[]): string[] {
  let world = startWorld(core, scenario, rules);
  return steps.map((which) => {
    const action = actions(world)[which];
    if (action === undefined) throw new Error('the path cannot be replayed');
    const task = action.step === 'work' ? ` (${taskName(world, action.a, action.b)})` : '';
    world = apply(world, action);
    const { phase, owner, epoch } = world.ownership(0);
    return `t=${world.now} ${nameOf(action)}${task} → ${phase} ${owner} ${epoch}`;
  });
}

function taskName(world: World, index: number, which: number): string {
  const task = world.attempts[index]?.tasks[which % 100];
  if (task === undefined) return '';
  if (task.task === 'order')
    return `${task.order.kind}${['', ', lost', ', answer lost'][Math.floor(which / 100)] ?? ''}`;
  return task.task === 'catch-up' ? `${task.task}, ${task.stage}` : task.task;
}

export function sentence(found: Exploration): string {
  const rate = Math.round(found.transitions / (found.tookMs / 1000));
  const extent = found.complete ? 'complete' : 'bounded';
  const numbers = `${found.states} states, ${found.transitions} transitions, depth ${found.depth}, ${extent}`;
  const head = `${found.scenario}: ${numbers}, ${Math.round(found.tookMs)} ms (${rate} transitions/s)`;
  if (found.violation === undefined) return `${head}: no violation`;
  const { invariant, detail } = found.violation;
  return [`${head}: VIOLATION of ${invariant}: ${detail}`, ...found.trace.map((step) => `  ${step}`)].join(
    '\n',
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      scenario: { type: 'string' },
      core: { type: 'string', default: coreDirectory },
      depth: { type: 'string' },
      states: { type: 'string' },
      off: { type: 'string', multiple: true },
      'heal-every': { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const core = await loadCore(values.core);
  const rules = Object.fromEntries((values.off ?? []).map((rule) => [rule, false]));
  const bounds = {
    depth: values.depth === undefined ? undefined : Number(values.depth),
    states: values.states === undefined ? undefined : Number(values.states),
    healEvery: values['heal-every'] === undefined ? undefined : Number(values['heal-every']),
  };
  const chosen = values.scenario === undefined ? scenarios : values.scenario.split(',').map(scenarioNamed);
  for (const scenario of chosen) {
    const found = explore(core, scenario, rules, bounds);
    process.stdout.write(`${values.json ? JSON.stringify(found) : sentence(found)}\n`);
    if (found.violation !== undefined && !values.json) process.exitCode = 1;
  }
}

if (import.meta.main) await main();
