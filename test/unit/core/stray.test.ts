import { describe, expect, test } from '@jest/globals';
import type { DoubtfulWrite } from '../../../src/core/doubt.ts';
import { lateWriteOf, type StrayChange } from '../../../src/core/stray.ts';

function doubt(method: string, path: string, store: 'legacy' | 'app' = 'legacy'): DoubtfulWrite {
  const times = { atMs: 1, settlesAtMs: 2 };
  return {
    id: `${method} ${path}`,
    member: 'm',
    partition: 'p',
    store,
    epoch: 1,
    method,
    path,
    why: 'x',
    ...times,
  };
}

describe('the write in doubt that explains a change', () => {
  test.each<[StrayChange, DoubtfulWrite, boolean]>([
    ['changed', doubt('PUT', '/appointments/a%2F1'), true],
    ['changed', doubt('PATCH', '/people/p/appointments/a%2F1/title'), true],
    ['changed', doubt('PUT', '/appointments/a2'), false],
    ['changed', doubt('PUT', '/appointments/a%2F1', 'app'), false],
    ['changed', doubt('DELETE', '/appointments/a%2F1'), false],
    ['deleted', doubt('DELETE', '/appointments/a%2F1'), true],
    ['deleted', doubt('PUT', '/appointments/a%2F1'), false],
    ['created', doubt('POST', '/appointments'), true],
    ['created', doubt('PUT', '/appointments/a%2F1'), true],
    ['changed', doubt('POST', '/appointments'), false],
    ['changed', doubt('PUT', '/appointments/%E0%A4%A'), false],
  ])('%s: %o: %s', (change, write, fits) => {
    expect(lateWriteOf({ store: 'legacy', record: 'a/1', change }, [write])).toBe(fits ? write : undefined);
  });

  test('one that names the record goes before one that only could have created it', () => {
    const writes = [doubt('POST', '/appointments'), doubt('PUT', '/appointments/a1')];
    expect(lateWriteOf({ store: 'legacy', record: 'a1', change: 'created' }, writes)?.method).toBe('PUT');
  });
});
