import { createHmac } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { webhookSchema } from '../../../src/config/webhook.ts';
import { maySign, proofOf } from '../../../src/sync/webhooks/signature.ts';

const nowMs = 1_700_000_000_000;
const seconds = String(nowMs / 1_000);
const body = Buffer.from('{"id":"7","data":{"title":"ä"}}');

function signatures(...given: object[]) {
  const events = [{ kind: 'appointment', id: 'id' }];
  return webhookSchema.parse({ signatures: given, events }).signatures;
}

function proof(given: object, headers: Record<string, string>, at = nowMs, bytes = body) {
  return proofOf(signatures(given), { headers, body: bytes }, at);
}

const hmac = (key: string | Buffer, text: string, encoding: 'hex' | 'base64' = 'hex') =>
  createHmac('sha256', key).update(text).digest(encoding);

describe('the way of GitHub', () => {
  const scheme = { scheme: 'github', secrets: ["It's a Secret to Everybody"] };
  // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
  const signed = 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17';
  const hello = Buffer.from('Hello, World!');

  test('holds for its own example, and for no other body, secret or notation', () => {
    const headers = { 'x-hub-signature-256': signed };
    expect(proof(scheme, headers, nowMs, hello)).toBe('proven');
    expect(proof(scheme, headers, nowMs, Buffer.from('Hello, World?'))).toBe('wrong');
    const other = { ...scheme, secrets: ['another secret'] };
    expect(proof(other, headers, nowMs, hello)).toBe('wrong');
    for (const text of [signed.slice(7), `${signed}00`, signed.slice(0, -2), 'sha256=', 'sha256=zz', '']) {
      expect(proof(scheme, { 'x-hub-signature-256': text }, nowMs, hello)).toBe('wrong');
    }
    expect(proof(scheme, {}, nowMs, hello)).toBe('unsigned');
  });

  test('while secrets are changed holds for the old and for the new one', () => {
    const both = { ...scheme, secrets: ['the-new-secret', 'the-old-secret'] };
    for (const secret of both.secrets) {
      const header = `sha256=${hmac(secret, body.toString())}`;
      expect(proof(both, { 'x-hub-signature-256': header })).toBe('proven');
    }
  });
});

describe('the way of Stripe', () => {
  const scheme = { scheme: 'stripe', secrets: ['whsec_test_secret'], toleranceMs: 60_000 };
  const mac = hmac('whsec_test_secret', `${seconds}.${body.toString()}`);
  const header = (text: string) => ({ 'stripe-signature': text });

  test('holds with several signatures, of which one is right', () => {
    expect(proof(scheme, header(`t=${seconds},v1=${mac}`))).toBe('proven');
    expect(proof(scheme, header(`t=${seconds}, v0=00,v1=${'0'.repeat(64)},v1=${mac}`))).toBe('proven');
  });

  test('holds only near the time that was signed', () => {
    const good = header(`t=${seconds},v1=${mac}`);
    expect(proof(scheme, good, nowMs + 60_000)).toBe('proven');
    expect(proof(scheme, good, nowMs - 60_000)).toBe('proven');
    expect(proof(scheme, good, nowMs + 60_001)).toBe('too-old');
    expect(proof(scheme, good, nowMs - 60_001)).toBe('too-old');
    // Another time, which was not signed.
    expect(proof(scheme, header(`t=${Number(seconds) + 100},v1=${mac}`), nowMs + 100_000)).toBe('wrong');
    for (const text of [`v1=${mac}`, `t=,v1=${mac}`, `t=NaN,v1=${mac}`, `t=${seconds}`]) {
      expect(proof(scheme, header(text))).toBe('wrong');
    }
  });

  test('compares no more signatures than a sender can have a use for', () => {
    const many = `v1=${'0'.repeat(64)},`.repeat(10);
    expect(proof(scheme, header(`t=${seconds},${many}v1=${mac}`))).toBe('wrong');
  });
});

test('Standard Webhooks sign id, time and body, with a key in base64', () => {
  const key = Buffer.from('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64');
  const scheme = { scheme: 'standard', secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'] };
  const mac = hmac(key, `msg_1.${seconds}.${body.toString()}`, 'base64');
  const headers = {
    'webhook-id': 'msg_1',
    'webhook-timestamp': seconds,
    'webhook-signature': `v1a,AAAA v1,${mac}`,
  };
  expect(proof(scheme, headers)).toBe('proven');
  expect(proof(scheme, { ...headers, 'webhook-id': 'msg_2' })).toBe('wrong');
  expect(proof(scheme, headers, nowMs + 300_001)).toBe('too-old');
  const { 'webhook-id': _, ...withoutId } = headers;
  expect(proof(scheme, withoutId)).toBe('wrong');
});

test('an HMAC of another make', () => {
  const scheme = {
    scheme: 'hmac',
    secrets: ['a-slack-like-secret'],
    header: 'X-Sign',
    prefix: 'v0=',
    encoding: 'base64',
    content: 'v0:{timestamp}:{body}',
    timestampHeader: 'X-Time',
    timestampUnit: 'ms',
  };
  const mac = hmac('a-slack-like-secret', `v0:${nowMs}:${body.toString()}`, 'base64');
  expect(proof(scheme, { 'x-sign': `v0=${mac}`, 'x-time': String(nowMs) })).toBe('proven');
  expect(proof(scheme, { 'x-sign': mac, 'x-time': String(nowMs) })).toBe('wrong');
  expect(proof(scheme, { 'x-sign': `v0=${mac}` })).toBe('wrong');
  // What stands in a body is never taken for a placeholder.
  const odd = Buffer.from('{timestamp}{body}$&');
  const plain = { scheme: 'hmac', secrets: ['a-slack-like-secret'], header: 'x-sign' };
  expect(proof(plain, { 'x-sign': hmac('a-slack-like-secret', odd.toString()) }, nowMs, odd)).toBe('proven');
});

test('a plain secret and a password', () => {
  const secret = {
    scheme: 'secret',
    secrets: ['the-secret-text'],
    header: 'authorization',
    prefix: 'Bearer ',
  };
  expect(proof(secret, { authorization: 'bearer the-secret-text' })).toBe('proven');
  expect(proof(secret, { authorization: 'the-secret-text' })).toBe('wrong');
  expect(proof(secret, { authorization: 'Bearer the-secret-tex' })).toBe('wrong');
  const basic = { scheme: 'basic', secrets: ['the-secret-text'], user: 'hooks' };
  const token = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString('base64')}` });
  expect(proof(basic, token('hooks:the-secret-text'))).toBe('proven');
  expect(proof(basic, token('other:the-secret-text'))).toBe('wrong');
  expect(proof(basic, token('hooks:'))).toBe('wrong');
});

test('any of several schemes will do', () => {
  const both = signatures(
    { scheme: 'github', secrets: ['the-old-secret'] },
    { scheme: 'secret', secrets: ['the-new-secret'], header: 'x-secret' },
  );
  expect(maySign(both, { 'x-secret': 'anything' })).toBe(true);
  expect(maySign(both, { 'x-other': 'anything' })).toBe(false);
  expect(proofOf(both, { headers: { 'x-secret': 'the-new-secret' }, body }, nowMs)).toBe('proven');
  expect(proofOf(both, { headers: { 'x-hub-signature-256': 'sha256=00' }, body }, nowMs)).toBe('wrong');
});
