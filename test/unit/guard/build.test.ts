/** What scripts/build-guard writes runs without onewriter, without a compiler, and says the same. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, test } from '@jest/globals';
import { verifyGuard } from '../../../src/guard/signature.ts';

test('the built guard signs what the guard in the tree accepts', () => {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter guard '));
  try {
    execFileSync(resolve('scripts/build-guard'), [directory]);
    const claims = { user: 'u', partition: 'p', epoch: 4, access: 'write' as const };
    const request = { secret: 'a-secret-for-this-test', method: 'PUT', target: '/notes/1' };
    const script = `
      import { signGuard } from ${JSON.stringify(join(directory, 'guard/signature.js'))};
      import { installGuard } from ${JSON.stringify(join(directory, 'guard/guard.js'))};
      let sql = '';
      await installGuard({ query: async (text) => { sql += text; return { rows: [] }; } });
      const headers = signGuard(${JSON.stringify({ ...request, ...claims, timestampSeconds: 1000 })});
      console.log(JSON.stringify({ headers, sqlLength: sql.length }));`;
    const told = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    const { headers, sqlLength } = JSON.parse(told) as { headers: Record<string, string>; sqlLength: number };
    expect(sqlLength).toBeGreaterThan(500);
    const lower = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
    );
    expect(verifyGuard({ ...request, nowSeconds: 1001, headers: lower })).toEqual({ ok: true, claims });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
