/** The whole story with every part as a process of its own; the demo's own checker judges it. */
import { spawn } from 'node:child_process';
import { expect, test } from '@jest/globals';

const withinMs = 180_000;

function runDemo(...parameters: string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['examples/calendar/demo.ts', ...parameters], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.once('error', reject);
    child.once('exit', (code) => resolve({ code, output }));
  });
}

for (const platform of ['calendar', 'json-server']) {
  test(
    `cohorts leave ${platform} live, one flip is aborted, a proxy is killed, and every promise is kept`,
    async () => {
      const { code, output } = await runDemo('--platform', platform);
      // The whole output, so that a failure can be read where it happened.
      expect(code === 0 ? '' : output).toBe('');
      expect(output).toContain('Every promise was kept.');
      expect(output).toMatch(/flips +completed, completed, completed, aborted/);
    },
    withinMs,
  );
}

test('an unknown platform is refused before anything is started', async () => {
  const { code, output } = await runDemo('--platform', 'nonsense');
  expect(code).toBe(1);
  expect(output).toBe('--platform must be calendar or json-server, not nonsense\n');
});
