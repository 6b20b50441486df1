/** What a client is told of a connection that could not be opened. */
import { expect, test } from '@jest/globals';
import { failureKinds } from '../../../src/core/failure.ts';
import { stageOfFault } from '../../../src/proxy/connect-fault.ts';
import { failureBy } from '../../../src/proxy/trouble.ts';
import { ConnectTimeout } from '../../../src/stores/connect.ts';

const withCode = (code: string): Error => Object.assign(new Error(`connect ${code}`), { code });

test.each([
  [withCode('EMFILE'), 503, 'out-of-connections'],
  [withCode('ENFILE'), 503, 'out-of-connections'],
  [withCode('ENOBUFS'), 503, 'out-of-connections'],
  [withCode('EADDRNOTAVAIL'), 503, 'out-of-connections'],
  [new AggregateError([withCode('EMFILE'), withCode('EMFILE')]), 503, 'out-of-connections'],
  [new AggregateError([withCode('ECONNREFUSED'), withCode('EMFILE')]), 502, 'upstream-refused'],
  [withCode('ECONNREFUSED'), 502, 'upstream-refused'],
  [new ConnectTimeout('late'), 504, 'upstream-connect-timeout'],
])('%s is %i %s, and nothing was sent', (fault, status, code) => {
  const failure = failureBy(fault, stageOfFault(fault), { store: 'app', access: 'write', sending: false });
  expect(failure).toMatchObject({ code, sent: 'no', members: { store: 'app' } });
  expect(failureKinds[failure.code].status).toBe(status);
});
