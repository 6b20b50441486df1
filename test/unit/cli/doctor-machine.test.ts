import { expect, test } from '@jest/globals';
import { checkProcesses } from '../../../src/cli/doctor/machine.ts';
import { loadedWith } from '../../support/config.ts';

test.each([
  [1, 1, []],
  [2, 4, ['ok']],
  [4, 4, ['ok']],
  [5, 4, ['warn']],
])('doctor says of %i processes on %i cores what they bring', (processes, cores, levels) => {
  const { config } = loadedWith({ 'proxy.processes': processes });
  expect(checkProcesses(config, cores).map(({ level }) => level)).toEqual(levels);
});
