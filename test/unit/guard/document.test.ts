/** What docs/guard.md promises to implementers in other languages is what the code does. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import {
  type GuardClaims,
  type GuardStatement,
  signGuard,
  verifyGuard,
} from '../../../src/guard/signature.ts';

type Headers = Readonly<Record<string, string>>;
interface Accepted extends GuardStatement {
  readonly name: string;
  readonly secret: string;
  readonly nowSeconds: number;
  readonly severalPartitions?: boolean;
  readonly headers: Headers;
}
interface Refused {
  readonly name: string;
  readonly code: string;
  readonly secret: string;
  readonly nowSeconds: number;
  readonly method: string;
  readonly target: string;
  readonly severalPartitions?: boolean;
  readonly headers: Headers;
}

const text = readFileSync('docs/guard.md', 'utf8');
const block = (language: string): string =>
  new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(text)?.[1] ?? '';
const vectors = JSON.parse(block('json')) as { accepted: Accepted[]; refused: Refused[] };
const hasPython = spawnSync('python3', ['--version']).status === 0;

function claimsOf({ user, partition, epoch, access, also }: Accepted): GuardClaims {
  return { user, partition, epoch, access, ...(also === undefined ? {} : { also }) };
}

function received<Vector extends { readonly headers: Headers }>(vector: Vector): Vector {
  const headers = Object.entries(vector.headers).map(([name, value]) => [name.toLowerCase(), value]);
  return { ...vector, headers: Object.fromEntries(headers) as Headers };
}

describe('the test vectors of docs/guard.md', () => {
  test.each(vectors.accepted)('$name is signed and verified so', (vector) => {
    expect(signGuard(vector)).toEqual(vector.headers);
    expect(verifyGuard(received(vector))).toEqual({ ok: true, claims: claimsOf(vector) });
  });

  test.each(vectors.refused)('$name is refused as $code', (vector) => {
    expect(verifyGuard(received(vector))).toEqual({ ok: false, code: vector.code });
  });
});

(hasPython ? describe : describe.skip)('the Python example of docs/guard.md', () => {
  test('judges every vector as the code does', () => {
    const all = [...vectors.accepted, ...vectors.refused].map(received);
    const program = `${block('python')}
import json, sys
print(json.dumps([verify(v["secret"], v["method"], v["target"], v["headers"], v["nowSeconds"],
                         v.get("severalPartitions", False))
                  for v in json.load(sys.stdin)]))`;
    const { stdout, stderr } = spawnSync('python3', ['-c', program], {
      input: JSON.stringify(all),
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual([
      ...vectors.accepted.map(claimsOf),
      ...vectors.refused.map(({ code }) => code),
    ]);
  });
});
