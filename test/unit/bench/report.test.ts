/** How benchmarks say what they found. */
import { describe, expect, test } from '@jest/globals';
import { figure, judge, sayJudgement } from '../../../bench/asked.ts';
import { jsonBody, largeAnswer, smallAnswer } from '../../../bench/bodies.ts';
import { reportOfWrk } from '../../../bench/load.ts';
import { left, right, table } from '../../../bench/table.ts';

describe('what was asked', () => {
  test('is met by the limit itself, and missed by anything worse', () => {
    expect(judge('view-memory', 150)).toMatchObject({ ok: true, limit: 150, unit: 'B' });
    expect(judge('view-memory', 151).ok).toBe(false);
  });

  test('stands beside what was measured', () => {
    expect(sayJudgement(judge('view-memory', 61.4))).toBe('asked <= 150 B: ok');
    expect(sayJudgement(judge('view-memory', 162))).toBe('asked <= 150 B: short by 12');
    expect(sayJudgement(judge('cohort-failures', 3))).toBe('asked <= 0: short by 3');
  });

  test('is not met by what was not measured', () => {
    const judgement = judge('view-memory', Number.NaN);
    expect(judgement.ok).toBe(false);
    expect(sayJudgement(judgement)).toBe('asked <= 150 B: not measured');
  });
});

test('a figure has three digits that count', () => {
  const said = [0.123_456, 1.5, 12.345, 99.96, 123.4, 12_345.6, 0, Number.NaN].map(figure);
  expect(said).toEqual(['0.123', '1.5', '12.3', '100', '123', '12,346', '0', '-']);
});

test('a table is as wide as it must be, and numbers stand below each other', () => {
  const rows = [
    ['onewriter', '9', ''],
    ['x', '1,000', 'ok'],
  ];
  expect(table([left('name'), right('n'), left('')], rows)).toBe(
    ['name           n', '---------  -----  --', 'onewriter      9', 'x          1,000  ok', ''].join('\n'),
  );
});

describe('a report of wrk', () => {
  const good = 'Requests/sec:  20345.67\nTransfer/sec:  4.1MB\n';

  test('is read', () => {
    expect(reportOfWrk(good)).toEqual({ perSecond: 20_345.67, errors: 0 });
  });

  test('counts what went wrong, of all kinds together', () => {
    const socket = '  Socket errors: connect 1, read 20, write 300, timeout 4000\n';
    expect(reportOfWrk(`${socket}${good}`).errors).toBe(4_321);
    expect(reportOfWrk(`  Non-2xx or 3xx responses: 17\n${socket}${good}`).errors).toBe(4_338);
  });

  test('of nothing answered is an error, too', () => {
    expect(reportOfWrk('Requests/sec:      0.00\n')).toEqual({ perSecond: 0, errors: 1 });
  });

  test('that is none is refused', () => {
    expect(() => reportOfWrk('unable to connect')).toThrow('wrk reported no rate');
  });
});

test('the bodies have the sizes that the tables name', () => {
  expect(jsonBody().byteLength).toBe(1_024);
  expect(smallAnswer.byteLength).toBeGreaterThan(140);
  expect(largeAnswer().byteLength).toBe(1_048_576);
  const bytes = largeAnswer();
  const pieces = new Set(
    Array.from({ length: 1_024 }, (_, at) => bytes.toString('hex', at * 1_024, (at + 1) * 1_024)),
  );
  // No piece is like another.
  expect(pieces.size).toBe(1_024);
});
