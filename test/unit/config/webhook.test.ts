import { describe, expect, test } from '@jest/globals';
import { loadedWith, problemsWith } from '../../support/config.ts';

const place = 'stores.legacy.connector.webhook';
const good = {
  signatures: [{ scheme: 'github', secrets: ['the-secret-text'] }],
  events: [{ kind: 'item', id: 'data.id' }],
};

function problems(webhook: object, more: Record<string, unknown> = {}) {
  return problemsWith({ [place]: { ...good, ...webhook }, webhooks: { port: 0 }, ...more });
}

describe('a webhook', () => {
  test('that can be proven and names a kind is taken', () => {
    expect(problems({})).toEqual([]);
    const secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'];
    expect(problems({ signatures: [{ scheme: 'standard', secrets }] })).toEqual([]);
  });

  test.each([
    ['no signature', { signatures: [] }, `${place}.signatures`],
    ['a kind that there is not', { events: [{ kind: 'other', id: 'id' }] }, `${place}.events[0].kind`],
    [
      'a secret that is no key',
      { signatures: [{ scheme: 'standard', secrets: ['whsec_short'] }] },
      `${place}.signatures[0].secrets`,
    ],
    [
      'a time that is not signed',
      { signatures: [{ scheme: 'hmac', secrets: ['12345678'], header: 'x-s', timestampHeader: 'x-t' }] },
      `${place}.signatures[0].timestampHeader`,
    ],
    [
      'a signed time that nothing says',
      {
        signatures: [{ scheme: 'hmac', secrets: ['12345678'], header: 'x-s', content: '{timestamp}{body}' }],
      },
      `${place}.signatures[0].timestampHeader`,
    ],
    [
      'a signed id that nothing says',
      { signatures: [{ scheme: 'hmac', secrets: ['12345678'], header: 'x-s', content: '{id}{body}' }] },
      `${place}.signatures[0].idHeader`,
    ],
    [
      'a list that is none',
      { events: [{ each: 'events', kind: 'item', id: 'id' }] },
      `${place}.events[0].each`,
    ],
  ])('with %s is refused at its place', (_, webhook, path) => {
    expect(problems(webhook).map((problem) => problem.path)).toEqual([path]);
  });

  test('needs a listener, and a listener needs it', () => {
    expect(loadedWith({ [place]: good }).warnings.join(' ')).toContain('no delivery is taken anywhere');
    expect(loadedWith({ webhooks: { port: 0 } }).warnings.join(' ')).toContain('every delivery gets 404');
    expect(problems({}, { webhooks: { port: 8081 } }).map(({ path }) => path)).toEqual(['webhooks.port']);
  });
});
