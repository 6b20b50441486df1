import { expect, test } from '@jest/globals';
import { checkProcesses } from '../../../src/cli/doctor/machine.ts';
import { checkPartitionNames, checkPinnedRoutes } from '../../../src/cli/doctor/settings.ts';
import { loadedWith } from '../../support/config.ts';

test('routes outside the promise are shown by host, method and path', () => {
  const { config } = loadedWith({
    routes: [
      { path: '/login', store: 'legacy', anonymous: true },
      { host: 'status.example', path: '/*', store: 'app', methods: ['GET'], headers: { 'X-A': '1' } },
    ],
  });
  expect(checkPinnedRoutes(config).map(({ detail }) => detail)).toEqual([
    'outside the promise, always one store: /login, GET status.example/* (by headers, too)',
  ]);
});

test('where nothing says what names of partitions look like, doctor says what that means', () => {
  const detailWith = (changes: Record<string, unknown>): string | undefined =>
    checkPartitionNames(loadedWith(changes).config)[0]?.detail;
  expect(detailWith({})).toContain('no pattern: a name in another spelling');
  expect(detailWith({ partitionNames: { letterCase: 'lower' } })).toContain('no pattern');
  expect(detailWith({ partitionNames: { pattern: '[a-z]+' } })).toBe('match [a-z]+');
});

test.each([
  [1, 1, []],
  [2, 4, ['ok']],
  [4, 4, ['ok']],
  [5, 4, ['warn']],
])('doctor says of %i processes on %i cores what they bring', (processes, cores, levels) => {
  const { config } = loadedWith({ 'proxy.processes': processes });
  expect(checkProcesses(config, cores).map(({ level }) => level)).toEqual(levels);
});
