import { describe, expect, test } from '@jest/globals';
import { parseConfig } from '../../../src/config/load.ts';
import { problemsWith } from '../../support/config.ts';

const read = (file: unknown) => parseConfig(JSON.stringify(file), {}, 'test.json');
const legacy = { url: 'http://127.0.0.1:9001' };

describe('a proxy that only observes', () => {
  test('needs nothing but the URL of legacy', () => {
    const loaded = read({ proxy: { mode: 'observe' }, stores: { legacy } });
    if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
    expect(loaded.warnings).toEqual([]);
    expect(loaded.config).toMatchObject({
      proxy: { mode: 'observe', observe: { users: 'hash', totalBytes: 2 ** 30 } },
      ...{ identity: [], stores: { legacy, app: { url: 'http://app.invalid' } } },
    });
  });

  test('takes everything else as always, and is told what is wrong with it', () => {
    const loaded = read({
      ...{ proxy: { mode: 'observe', observe: { totalBytes: 5 } }, secret: 'short' },
      ...{ stores: { legacy, app: legacy }, identity: [{ basic: true }], other: 1 },
    });
    expect(loaded.ok ? [] : loaded.problems.map(({ path }) => path)).toEqual([
      ...['proxy.observe.totalBytes', 'secret', 'stores.app.url', 'identity[0].basic', 'other'],
    ]);
  });

  test('gives nothing another form', () => {
    const [problem, ...more] = problemsWith({
      'proxy.mode': 'observe',
      'stores.legacy.hook': { file: './hook.ts' },
    });
    expect([problem?.path, more]).toEqual(['stores.legacy.hook', []]);
  });

  test('is one process', () => {
    const problems = problemsWith({ 'proxy.mode': 'observe', 'proxy.processes': 2 });
    expect(problems.map(({ path }) => path)).toEqual(['proxy.processes']);
  });

  test.each(['secret', 'stores.app', 'identity'])('without that mode, %s is needed', (path) => {
    expect(problemsWith({ [path]: undefined }).map((problem) => problem.path)).toContain(path);
  });
});
