import { describe, expect, test } from '@jest/globals';
import { onlyValueInPairs, readingsInPairs } from '../../../src/core/condition.ts';

/** Spellings that some server takes for "owner_id": qs, Rack, PHP, or one that overlooks letter case. */
const taken = [
  ...['OWNER_ID', 'owner.id', 'owner%20id', '+owner_id', 'owner_id[]', 'owner_id[a]', 'owner_id%5B%5D'],
  ...['[owner_id]', '%5Bowner_id%5D', '[owner_id', 'owner_id]', 'owner_id[', '[[owner_id]]', 'owner_id%00'],
  ...['owner_id%00x', 'owner[id', 'owner%5Bid', '[owner_id]%00', 'OWNER[ID'],
];

describe('a name in a query or a form', () => {
  test.each(taken)(
    'in the spelling %s counts for some servers only, so it is not to be read safely',
    (name) => {
      expect(onlyValueInPairs(`a=1&${name}=u2`, 'owner_id')).toBe('');
      expect(readingsInPairs(`a=1&${name}=u2`, 'owner_id')).toEqual(['u2', undefined]);
    },
  );

  test.each(['owner', 'ownerid', 'owner[id]', 'my_owner_id', 'owner_id2', 'x[owner_id]'])(
    'is not %s for anybody',
    (name) => {
      expect(onlyValueInPairs(`${name}=u2`, 'owner_id')).toBeUndefined();
    },
  );

  // Servers that read %u0041, or pass over bytes that are no UTF-8, could take it for any name.
  test.each(['owner%u005fid', '%u006Fwner_id', 'owner_%FFid', 'owner_id%', '%C3', 'x%zz'])(
    'could be %s, which cannot be decoded',
    (name) => {
      expect(onlyValueInPairs(`a=1&${name}=u2`, 'owner_id')).toBe('');
      expect(onlyValueInPairs(`owner_id=u1&${name}=u2`, 'owner_id')).toBe('');
      expect(readingsInPairs(`a=1&${name}=u2`, 'owner_id')).toEqual(['u2', undefined]);
    },
  );

  test.each(['%u0062ob', 'b%FFob', 'bob%', '%C3%28'])('of the value %s names nobody', (value) => {
    expect(onlyValueInPairs(`owner_id=${value}`, 'owner_id')).toBe('');
    expect(onlyValueInPairs(`owner_id=bob&other=${value}`, 'owner_id')).toBe('bob');
  });

  // Each bracket tried against all that follow would take a quarter of an hour.
  test('of a million brackets is judged at once', () => {
    expect(onlyValueInPairs(`a${'['.repeat(1_000_000)}a=u2`, 'owner_id')).toBeUndefined();
  });

  test('is read where all servers agree', () => {
    expect(onlyValueInPairs('a=1&owner_id=u2&b[]=3', 'owner_id')).toBe('u2');
  });

  test('behind more pairs than every server reads is not to be read safely', () => {
    const many = 'a&'.repeat(500);
    expect(onlyValueInPairs(`${many}owner_id=u2`, 'owner_id')).toBe('');
    expect(onlyValueInPairs(`owner_id=u1&${many}owner_id=u2`, 'owner_id')).toBe('');
    expect(onlyValueInPairs(`owner_id=u1&${many}`, 'owner_id')).toBe('u1');
  });
});
