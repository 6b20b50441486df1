import { Writable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import type { FlipAnswer, StatusAnswer } from '../../../src/admin/answers.ts';
import { entriesOf } from '../../../src/cli/commands/partitions-import.ts';
import { startRefusal, whyNotLive } from '../../../src/cli/commands/serve.ts';
import { summaryOf } from '../../../src/cli/commands/show-plan.ts';
import { firstLine, nextSteps } from '../../../src/cli/commands/status.ts';
import { exitOfFlip, exitOfPlan, exitOfProblem } from '../../../src/cli/exit.ts';
import { Output, plain } from '../../../src/cli/output.ts';

const flip: FlipAnswer = {
  id: 'f1',
  cohort: 'pilot',
  to: 'app',
  state: 'running',
  detail: '',
  by: 'ops',
  reason: 'go',
  createdAtMs: 1,
  ...{ total: 120, committed: 40, aborted: 0, pending: 80, blocked: [] },
};
const counts: StatusAnswer['counts'] = {
  total: 120,
  byOwner: { legacy: 80, app: 40 },
  byPhase: { open: 118, fenced: 2, committed: 0 },
  writes: { app: 40, fenced: 2, legacy: 78 },
  longestFenceMs: 310.4,
};
const sound = { regression: null };
const blocked = [{ partition: 'u1', code: 'reserved', detail: 'wait' }];

describe('the first line of status', () => {
  test('says where writes go, how long the oldest fence stands, and what the flip waits for', () => {
    const waiting = { ...flip, state: 'awaiting-approval' } as const;
    expect(firstLine({ ...sound, counts, flips: [waiting] })).toBe(
      'Writes: 40/120 app, 2 fenced (longest 310 ms), 78 legacy — PAUSED (gate: approval)',
    );
  });

  test('leaves out what there is not', () => {
    const quiet = { ...counts, writes: { app: 120, fenced: 0, legacy: 0 } };
    expect(firstLine({ ...sound, counts: quiet, flips: [] })).toBe('Writes: 120/120 app, 0 fenced, 0 legacy');
    const ended = { ...flip, state: 'completed' } as const;
    expect(firstLine({ ...sound, counts: quiet, flips: [ended] })).toBe(
      'Writes: 120/120 app, 0 fenced, 0 legacy',
    );
  });

  test('names a running and a paused flip', () => {
    expect(firstLine({ ...sound, counts, flips: [flip] })).toMatch(/78 legacy — RUNNING$/);
    const paused = { ...flip, state: 'paused', detail: 'paused by ops: lunch' } as const;
    expect(firstLine({ ...sound, counts, flips: [paused] })).toMatch(/ — PAUSED \(paused by ops: lunch\)$/);
  });

  test('of a ledger that lost data is that nothing is written, and its counts are not trusted', () => {
    const regression = { detail: 'version 7 is missing', atMs: 1, by: '' };
    const line = firstLine({ regression, counts, flips: [flip] });
    expect(line).toMatch(/^Writes: refused\. Do not trust what the ledger says now: 40\/120 app/);
    expect(line).not.toContain('RUNNING');
    expect(nextSteps({ regression, counts, flips: [] }, 'pilot')).toEqual([]);
  });

  test('the next steps are commands that never take anything back', () => {
    const paused = { ...flip, state: 'paused' } as const;
    const ended = { ...flip, state: 'completed', blocked } as const;
    const steps = [[flip], [paused], [ended], []].flatMap((flips) =>
      nextSteps({ ...sound, counts, flips }, 'pilot'),
    );
    expect(steps).toContain('onewriter resume f1 --reason TEXT');
    expect(steps).toContain('onewriter verify pilot');
    expect(steps).toContain('onewriter plan --cohort pilot --to app');
    expect(steps.join('\n')).not.toMatch(/abort|rollback|discard|legacy/);
    const whole = { ...flip, state: 'completed', committed: 120, pending: 0 } as const;
    const moved = { ...counts, writes: { app: 120, fenced: 0, legacy: 0 } };
    expect(nextSteps({ ...sound, counts: moved, flips: [whole] }, 'pilot')).toEqual([]);
  });
});

describe('exit codes', () => {
  test('of a plan: 0 nothing to change, 2 not empty, 8 nothing can move', () => {
    const blockers = [{ code: 'no-members', detail: 'start a proxy' }];
    expect(exitOfPlan({ flip: [], blocked: [], blockers: [] })).toBe(0);
    expect(exitOfPlan({ flip: ['u2'], blocked, blockers: [] })).toBe(2);
    expect(exitOfPlan({ flip: [], blocked, blockers: [] })).toBe(8);
    expect(exitOfPlan({ flip: ['u2'], blocked: [], blockers })).toBe(8);
  });

  test('of a flip: 0 all moved, 3 waits for somebody, 4 some did not move', () => {
    const done = { ...flip, state: 'completed', committed: 120, pending: 0 } as const;
    expect(exitOfFlip(done)).toBe(0);
    expect(exitOfFlip({ ...done, aborted: 1, blocked })).toBe(4);
    expect(exitOfFlip({ ...done, blocked })).toBe(4);
    expect(exitOfFlip({ ...flip, state: 'aborted' })).toBe(4);
    expect(exitOfFlip({ ...flip, state: 'paused' })).toBe(3);
    expect(exitOfFlip({ ...flip, state: 'awaiting-approval' })).toBe(3);
    expect(exitOfFlip({ ...flip, state: 'failed' })).toBe(4);
  });

  test('of a refusal: 7 denied, 6 stale, 8 nothing can move, 1 the rest', () => {
    expect(exitOfProblem(401, 'no-token')).toBe(7);
    expect(exitOfProblem(403, 'role-needed')).toBe(7);
    expect(exitOfProblem(409, 'stale-plan')).toBe(6);
    expect(exitOfProblem(422, 'nothing-can-move')).toBe(8);
    expect(exitOfProblem(404, 'no-such-cohort')).toBe(1);
  });
});

test('the last line of a plan counts moves back as reversed', () => {
  expect(summaryOf({ to: 'app', flip: ['u1', 'u2'], blocked, blockers: [] })).toBe(
    'Plan: 2 to flip, 1 blocked, 0 to reverse',
  );
  expect(summaryOf({ to: 'legacy', flip: ['u1'], blocked: [], blockers: [] })).toBe(
    'Plan: 0 to flip, 0 blocked, 1 to reverse',
  );
  const blockers = [{ code: 'no-members', detail: 'start a proxy' }];
  expect(summaryOf({ to: 'legacy', flip: ['u1'], blocked: [], blockers })).toBe(
    'Plan: nothing can move; 1 would reverse once that is mended, 0 blocked',
  );
});

test('a cohort that is new in the file is told the way that needs no restart', () => {
  expect(whyNotLive(['cohorts'])).toMatch(/^a change of cohorts needs a restart; .*PUT \/v1\/cohorts\/NAME/);
  expect(whyNotLive(['stores'])).toBe('a change of stores needs a restart');
});

describe('a role that cannot start', () => {
  function socketError(code: string, port: number): Error {
    return new Error('the part did not start', {
      cause: Object.assign(new Error('listen'), { code, port, address: '127.0.0.1' }),
    });
  }

  test('why a file cannot be read is said once', () => {
    const cause = Object.assign(new Error("ENOENT: no such file or directory, open 'a.pem'"), {
      code: 'ENOENT',
    });
    const error = new Error('The file of proxy.tls.cert, a.pem, cannot be read (ENOENT)', { cause });
    expect(startRefusal(error, { proxy: { port: 8080 } }).detail).toBe(
      'onewriter could not start. The file of proxy.tls.cert, a.pem, cannot be read (ENOENT)',
    );
  });

  test('an occupied port names the setting to change', () => {
    expect(
      startRefusal(socketError('EADDRINUSE', 8081), { proxy: { port: 8080 }, admin: { port: 8081 } }).detail,
    ).toBe('127.0.0.1:8081 is in use by another process. Change admin.port in the configuration.');
    expect(
      startRefusal(socketError('EADDRINUSE', 8080), { proxy: { port: 8080 }, admin: { port: 8081 } }).detail,
    ).toContain('Change proxy.port');
    const withWebhooks = { admin: { port: 8081 }, webhooks: { port: 8082 } };
    expect(startRefusal(socketError('EADDRINUSE', 8082), withWebhooks).detail).toContain(
      'Change webhooks.port',
    );
    expect(
      startRefusal(socketError('EACCES', 80), { proxy: { port: 80 }, admin: { port: 8081 } }).detail,
    ).toContain('may not be opened');
  });

  test('any other error keeps its cause, in one sentence and without a stack', () => {
    const error = new Error('Redis does not answer', { cause: new Error('connection refused') });
    const { detail } = startRefusal(error, { proxy: { port: 8080 }, admin: { port: 8081 } });
    expect(detail).toBe('onewriter could not start. Redis does not answer; because connection refused');
  });
});

describe('a file to import', () => {
  test('may be an array or NDJSON', () => {
    const expected = {
      ok: true,
      value: [{ partition: 'u1', attributes: { seats: 3 } }, { partition: 'u2' }],
    };
    expect(entriesOf('[{"partition":"u1","attributes":{"seats":3}},{"partition":"u2"}]')).toEqual(expected);
    expect(entriesOf('{"partition":"u1","attributes":{"seats":3}}\n\n{"partition":"u2"}\n')).toEqual(
      expected,
    );
  });

  test('everything that is wrong is listed with its place', () => {
    const result = entriesOf('{"partition":"u1"}\nnonsense\n{"partition":"","extra":1}');
    if (result.ok) throw new Error('was accepted');
    expect(result.refusal.lines?.join('\n')).toMatch(/line 2: is not JSON\nline 3: /);
  });
});

describe('what is printed', () => {
  function sink() {
    const lines: string[] = [];
    const stream = new Writable({
      write(chunk: Buffer, _encoding, done) {
        lines.push(chunk.toString());
        done();
      },
    });
    return { stream, lines };
  }

  test('tables are aligned and colour is left out unless asked for', () => {
    const { stream, lines } = sink();
    const output = new Output({ stdout: stream, stderr: stream, json: false, colour: false });
    output.table([
      ['a', 'one'],
      ['longer', 'two'],
    ]);
    output.line(output.paint('red', 'plain'));
    expect(lines).toEqual(['a       one\n', 'longer  two\n', 'plain\n']);
  });

  test('a reader that went away ends the printing and nothing else', () => {
    const { stream, lines } = sink();
    const output = new Output({ stdout: stream, stderr: stream, json: false, colour: false });
    stream.emit('error', Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    output.line('unread');
    expect(output.broken.aborted).toBe(true);
    expect(lines).toEqual([]);
  });

  test('names from elsewhere cannot steer the terminal', () => {
    expect(plain('u1\u001b[2Jevil\nline')).toBe('u1\ufffd[2Jevil line');
  });
});
