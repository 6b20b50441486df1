import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { findAdmin } from '../../../src/cli/address.ts';
import { soundWith } from '../../support/config.ts';

const directory = mkdtempSync(join(tmpdir(), 'onewriter-address-'));
afterAll(() => rmSync(directory, { recursive: true }));

let files = 0;
function configured(changes: Record<string, unknown>): string {
  files += 1;
  const path = join(directory, `${files}.json`);
  writeFileSync(path, JSON.stringify(soundWith(changes)));
  return path;
}

const nowhere = join(directory, 'nowhere.yaml');

function found(flags: { url?: string; token?: string; configPath?: string; env?: Record<string, string> }) {
  return findAdmin({
    url: flags.url,
    token: flags.token,
    configPath: flags.configPath ?? nowhere,
    env: flags.env ?? {},
  });
}

describe('where the admin API is', () => {
  test('with address and token given, no configuration is needed', () => {
    const value = { url: 'http://h:1', token: 't' };
    expect(found({ url: 'http://h:1/', token: 't' })).toEqual({ ok: true, value });
    const env = { ONEWRITER_ADMIN: 'http://h:1', ONEWRITER_TOKEN: 't' };
    expect(found({ env })).toEqual({ ok: true, value });
    expect(found({ url: 'http://other:2', env })).toMatchObject({
      value: { url: 'http://other:2', token: 't' },
    });
  });

  test('the rest comes from the configuration: the first operator in plain before any other', () => {
    const tokens = [
      { name: 'v', role: 'viewer', token: 'viewer-token' },
      { name: 'h', role: 'operator', sha256: 'a'.repeat(64) },
      { name: 'o', role: 'operator', token: 'operator-token' },
    ];
    const configPath = configured({ 'admin.tokens': tokens, 'admin.host': '0.0.0.0', 'admin.port': 9_000 });
    const value = { url: 'http://127.0.0.1:9000', token: 'operator-token' };
    expect(found({ configPath })).toEqual({ ok: true, value });
    const viewers = configured({ 'admin.tokens': tokens.slice(0, 2), 'admin.host': '::1' });
    expect(found({ configPath: viewers })).toMatchObject({
      value: { url: 'http://[::1]:8081', token: 'viewer-token' },
    });
  });

  test('what is missing is said, with what to give instead', () => {
    expect(found({})).toMatchObject({ ok: false, refusal: { code: 'bad-config', exit: 1 } });
    const hashed = configured({ 'admin.tokens': [{ name: 'h', role: 'admin', sha256: 'a'.repeat(64) }] });
    expect(found({ configPath: hashed })).toMatchObject({ refusal: { code: 'no-token' } });
    const anyPort = configured({ 'admin.port': 0 });
    expect(found({ configPath: anyPort })).toMatchObject({ refusal: { code: 'no-admin-address' } });
    expect(found({ url: 'localhost:8081', token: 't' })).toMatchObject({ refusal: { code: 'usage' } });
  });
});
