import type { IncomingMessage } from 'node:http';
import { describe, expect, test } from '@jest/globals';
import type { KeyEnding, KeyVerdict } from '../../../src/core/idempotency.ts';
import { ByteBudget } from '../../../src/proxy/byte-budget.ts';
import { AnswerCopy, keptBodyBytesMax } from '../../../src/proxy/idempotency-answer.ts';
import {
  credentialOf,
  fingerprintBytesMax,
  fingerprintOf,
  keyOf,
  type WriteToFingerprint,
} from '../../../src/proxy/idempotency-key.ts';
import { type KeyRefusal, refusalOf } from '../../../src/proxy/idempotency-trouble.ts';

const requestWith = (...values: string[]): IncomingMessage => {
  const headers = values.length === 0 ? {} : { 'idempotency-key': values.join(', ') };
  const rawHeaders = values.flatMap((value) => ['Idempotency-Key', value]);
  return { headers, rawHeaders } as unknown as IncomingMessage;
};

describe('the key of a request', () => {
  test.each(['k', 'a'.repeat(255), '"8e03978e-40d5-43dd-bc93-6894a57f9324"', '\xfc\xff'])(
    '%j is one',
    (key) => {
      expect(keyOf(requestWith(key))).toEqual({ found: 'key', key });
    },
  );

  test('is not there', () => {
    expect(keyOf(requestWith())).toEqual({ found: 'none' });
  });

  test.each([[['']], [['""']], [['a'.repeat(256)]], [['k1', 'k1']], [['k1', 'k2']]])(
    '%j is none',
    (values) => {
      expect(keyOf(requestWith(...values))).toMatchObject({ found: 'invalid' });
    },
  );
});

describe('a credential', () => {
  test('is told by what proved the user, and never holds the claims', () => {
    const ann = { user: 'ann', credential: 'jwt', claims: { jti: '1' } } as const;
    expect(credentialOf(ann)).toBe(credentialOf({ ...ann, claims: { jti: '2' } }));
    expect(credentialOf(ann)).not.toBe(credentialOf({ ...ann, credential: 'header' }));
    expect(credentialOf(ann)).not.toBe(credentialOf({ ...ann, user: 'bob' }));
  });
});

describe('a fingerprint', () => {
  const whole = (text: string): WriteToFingerprint['body'] => ({ bytes: Buffer.from(text), whole: true });
  const write: WriteToFingerprint = {
    method: 'POST',
    target: '/a',
    contentType: 'text/plain',
    declaredLength: '2',
    body: whole('hi'),
  };
  const print = (change: Partial<WriteToFingerprint>): string => fingerprintOf({ ...write, ...change });

  test('is the same for the same write, in whichever framing it came', () => {
    expect(print({})).toBe(print({ declaredLength: undefined }));
  });

  test.each<Partial<WriteToFingerprint>>([
    { method: 'PUT' },
    { target: '/a?' },
    { contentType: undefined },
    { body: whole('ho') },
    { body: whole('') },
    { method: 'POS', target: 'T/a' },
    { contentType: 'text/plain2', body: whole('hi') },
  ])('is another for another write: %j', (change) => {
    expect(print(change)).not.toBe(print({}));
  });

  test('of a long body is that of its beginning and its length', () => {
    const body = (bytes: number): WriteToFingerprint['body'] => ({
      bytes: Buffer.alloc(bytes, 1),
      whole: false,
    });
    const long = print({ body: body(fingerprintBytesMax + 1), declaredLength: '3000000' });
    expect(print({ body: body(fingerprintBytesMax + 70_000), declaredLength: '3000000' })).toBe(long);
    expect(print({ body: body(fingerprintBytesMax + 1), declaredLength: '3000001' })).not.toBe(long);
    expect(print({ body: body(fingerprintBytesMax + 1), declaredLength: undefined })).not.toBe(long);
  });
});

describe('the copy of an answer', () => {
  const copyOf = (
    status: number,
    options: { headers?: string[]; chunks?: readonly Buffer[]; guarded?: boolean; budget?: ByteBudget } = {},
  ): AnswerCopy => {
    const copy = new AnswerCopy(options.budget ?? new ByteBudget(1_000_000), options.guarded ?? false);
    copy.head(status, options.headers ?? [], false);
    for (const chunk of options.chunks ?? []) copy.data(chunk);
    return copy;
  };
  const endingOf = (...parameters: Parameters<typeof copyOf>): KeyEnding => copyOf(...parameters).ending();

  test('keeps status, fields and bytes, but nothing of the connection or the moment, and no cookie', () => {
    const headers = [
      'ETag',
      '"1"',
      'Connection',
      'close',
      'Date',
      'now',
      'Set-Cookie',
      's',
      'Content-Length',
      '4',
      'X-A',
      '1',
      'X-A',
      '2',
    ];
    expect(endingOf(201, { headers, chunks: [Buffer.from('bo'), Buffer.from('dy')] })).toEqual({
      ending: 'answered',
      answer: { status: 201, headers: ['ETag', '"1"', 'X-A', '1', 'X-A', '2'], body: Buffer.from('body') },
    });
  });

  test.each([200, 202, 204, 303, 400, 403, 404, 409, 412, 422, 500, 501, 503, 505])(
    '%i is an answer',
    (status) => {
      expect(endingOf(status)).toMatchObject({ ending: 'answered', answer: { status } });
    },
  );

  test.each([502, 504, 520, 524, 527])('%i leaves the write in doubt', (status) => {
    expect(endingOf(status)).toEqual({ ending: 'in-doubt' });
  });

  test.each([401, 408, 421, 425, 429])('%i says that nothing was done', (status) => {
    expect(endingOf(status)).toEqual({ ending: 'not-done' });
  });

  test('503 says so only where it asks for the same request again', () => {
    expect(endingOf(503, { headers: ['retry-after', '5'] })).toEqual({ ending: 'not-done' });
    expect(endingOf(500, { headers: ['retry-after', '5'] })).toMatchObject({ ending: 'answered' });
  });

  test('the refusal of a guard says so only in the answer of a store with a guard', () => {
    const headers = ['Content-Type', 'application/problem+json'];
    const refusal = [Buffer.from('{"type":"urn:onewriter:problem:closed-epoch"}')];
    expect(endingOf(409, { headers, chunks: refusal, guarded: true })).toEqual({ ending: 'not-done' });
    for (const other of [
      { headers, chunks: refusal, guarded: false },
      { headers: [], chunks: refusal, guarded: true },
      { headers, chunks: [Buffer.from('{"type":"urn:onewriter:problem:outcome-unknown"}')], guarded: true },
      { headers, chunks: [Buffer.from('null')], guarded: true },
      { headers, chunks: [Buffer.from('not JSON')], guarded: true },
    ]) {
      expect(endingOf(409, other)).toMatchObject({ ending: 'answered' });
    }
  });

  test('is given up where the answer or all copies together are too large, and gives its memory back', () => {
    const chunks = [Buffer.alloc(keptBodyBytesMax), Buffer.alloc(1)];
    expect(endingOf(200, { chunks: chunks.slice(0, 1) })).toMatchObject({ ending: 'answered' });
    const budget = new ByteBudget(1_000_000);
    expect(endingOf(200, { chunks, budget })).toEqual({ ending: 'not-kept', status: 200 });
    expect(budget.taken).toBe(0);
    const small = new ByteBudget(10);
    const first = copyOf(200, { chunks: [Buffer.alloc(8)], budget: small });
    expect(endingOf(200, { chunks: [Buffer.alloc(3)], budget: small })).toEqual({
      ending: 'not-kept',
      status: 200,
    });
    first.drop();
    expect(small.taken).toBe(0);
    expect(endingOf(200, { chunks: [Buffer.alloc(3)], budget: small })).toMatchObject({ ending: 'answered' });
  });

  test('knows when the client would take it for complete', () => {
    const copy = copyOf(200, { headers: ['content-length', '4'], chunks: [Buffer.from('bod')] });
    expect(copy.looksComplete).toBe(false);
    copy.data(Buffer.from('y'));
    expect(copy.looksComplete).toBe(true);
    expect(copyOf(200, { chunks: [Buffer.from('x')] }).looksComplete).toBe(false);
    expect(copyOf(204).looksComplete).toBe(true);
  });
});

describe('a refusal because of the key', () => {
  const first = { owner: 'legacy', epoch: 1, atMs: 0 } as const;
  const verdicts: readonly KeyRefusal[] = [
    { verdict: 'reused' },
    { verdict: 'unavailable' },
    { verdict: 'pending', first },
    { verdict: 'in-doubt', first },
    { verdict: 'not-kept', first, status: 200 },
    { verdict: 'too-many-keys', retryAfterMs: 1 },
  ] satisfies readonly KeyVerdict[];
  test.each(verdicts)('says that this request was not sent: %j', (verdict) => {
    const failure = refusalOf(verdict);
    expect(failure.sent).toBe('no');
    expect(failure.detail).toMatch(/not sent/);
  });
});
