import { expect, test } from '@jest/globals';
import { webhookSchema } from '../../../src/config/webhook.ts';
import type { Json } from '../../../src/core/records.ts';
import { parseExactly } from '../../../src/stores/rest/exact-json.ts';
import { deliveryIdOf, namedMax, recordsIn } from '../../../src/sync/webhooks/events.ts';

const signatures = [{ scheme: 'standard', secrets: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'] }];

function configOf(events: object[], more: object = {}) {
  return webhookSchema.parse({ signatures, events, ...more });
}

function named(rules: object | object[], body: Json) {
  return recordsIn(configOf([rules].flat()).events, body);
}

test('one event names its record, whatever else it says', () => {
  const rule = { kind: 'appointment', id: 'data.id', partition: 'data.owner' };
  expect(named(rule, { data: { id: 7, owner: 'ann', title: 'secret' } })).toEqual([
    { kind: 'appointment', id: '7', partition: 'ann' },
  ]);
  // No partition, or one that nothing can be signed for: it is looked up.
  expect(named(rule, { data: { id: '7' } })).toEqual([{ kind: 'appointment', id: '7' }]);
  expect(named(rule, { data: { id: '7', owner: '' } })).toEqual([{ kind: 'appointment', id: '7' }]);
  for (const id of [null, '', '.', '..', true, { a: 1 }, 'x'.repeat(513), 'x\ud800']) {
    expect(named(rule, { data: { id, owner: 'ann' } })).toEqual([]);
  }
  for (const body of [null, 'text', 7, [], { data: [] }]) expect(named(rule, body)).toEqual([]);
});

test('several events in one body, each record once, by the rules that fit', () => {
  const rules = [
    { each: 'events[*]', where: { type: ['made', 'gone'] }, kind: 'appointment', id: 'id', partition: 'of' },
    { each: 'events[*]', where: { type: 'invoice' }, kind: 'invoice', id: 'id' },
  ];
  const body = {
    events: [
      { type: 'made', id: '1', of: 'ann' },
      { type: 'gone', id: '1', of: 'ann' },
      { type: 'invoice', id: '1' },
      { type: 'other', id: '2' },
      'nonsense',
    ],
  };
  expect(named(rules, body)).toEqual([
    { kind: 'appointment', id: '1', partition: 'ann' },
    { kind: 'invoice', id: '1' },
  ]);
  const ids = (each: string, nested: Json) =>
    named({ each, kind: 'k', id: 'id' }, nested).map(({ id }) => id);
  expect(ids('[*]', [{ id: 'a' }, { id: 'b' }])).toEqual(['a', 'b']);
  expect(ids('a[*].b[*]', { a: [{ b: [{ id: 'x' }] }, { b: 5 }, { b: [{ id: 'y' }] }] })).toEqual(['x', 'y']);
});

test('a number that JSON cannot carry names no record: it would be another one', () => {
  const body = parseExactly('{"data":{"id":9007199254740997},"other":1}') as Json;
  expect(named({ kind: 'k', id: 'data.id' }, body)).toEqual([]);
  expect(named({ kind: 'k', id: 'other' }, body)).toEqual([{ kind: 'k', id: '1' }]);
});

test('no delivery names records without end', () => {
  const events = Array.from({ length: namedMax + 10 }, (_, at) => ({ id: at }));
  expect(named({ each: 'events[*]', kind: 'k', id: 'id' }, { events })).toHaveLength(namedMax);
});

test('a delivery is known by what the scheme says, or by what the configuration does', () => {
  const rules = [{ kind: 'k', id: 'id' }];
  const headers = { 'webhook-id': 'msg_1', 'x-id': 'other' };
  expect(deliveryIdOf(configOf(rules), headers, {})).toBe('msg_1');
  expect(deliveryIdOf(configOf(rules, { eventId: 'header.X-Id' }), headers, {})).toBe('other');
  expect(deliveryIdOf(configOf(rules, { eventId: 'body.a.id' }), headers, { a: { id: 7 } })).toBe('7');
  expect(deliveryIdOf(configOf(rules, { eventId: 'body.a.id' }), headers, {})).toBeUndefined();
  const long = { 'webhook-id': 'x'.repeat(257) };
  expect(deliveryIdOf(configOf(rules), long, {})).toBeUndefined();
});
