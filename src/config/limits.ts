/** The part of the configuration that bounds what clients can take of a proxy process. */
import { z } from 'zod';
import { positiveMilliseconds } from './terms.ts';

const count = z.int().min(1).max(1_000_000);
const bytes = z.int().min(1).max(1_099_511_627_776);

export const proxyLimits = z
  .strictObject({
    connections: count
      .default(20_000)
      .describe(
        'Client connections at a time; a few more get 503, all others are cut off. Leave room for held writes.',
      ),
    headerBytes: z
      .int()
      .min(1_024)
      .max(1_048_576)
      .default(32_768)
      .describe("Longest head of a request (beyond it 431) and of a store's answer (502)."),
    headersTimeoutMs: positiveMilliseconds
      .default(30_000)
      .describe('Time for the head of a request to arrive; then 408. A new connection counts as one, too.'),
    requestTimeoutMs: positiveMilliseconds
      .default(300_000)
      .describe('Time for a whole request to arrive, with its body; then 408. flip.holdMs comes on top.'),
    bodyBytes: z
      .int()
      .min(0)
      .max(1_099_511_627_776)
      .default(0)
      .describe('Longest body of a request; beyond it 413. 0: no bound but the time.'),
    keepAliveMs: positiveMilliseconds
      .default(65_000)
      .describe('How long a client connection may wait for its next request.'),
    stalledMs: positiveMilliseconds
      .default(60_000)
      .describe('How long a client may take nothing of an answer that waits for it; then it is broken off.'),
    answerSilenceMs: positiveMilliseconds
      .default(300_000)
      .describe('How long a store may send nothing in the middle of an answer; event streams, too.'),
    upgradedSilenceMs: z
      .int()
      .min(0)
      .max(86_400_000)
      .default(0)
      .describe(
        'How long a WebSocket may stay without a byte from either side; then it is closed. 0: for ever.',
      ),
    heldPerPartition: count
      .default(100)
      .describe('Writes of one partition that wait for the end of its move; one more gets 503.'),
    heldTotal: count.default(10_000).describe('Writes that wait in all; one more gets 503.'),
    queued: count
      .default(1_024)
      .describe('Requests that wait for a connection to a store, for each store; one more gets 503.'),
    inspectedBytes: bytes
      .default(67_108_864)
      .describe(
        'Memory for bodies that say who a request is from or what it is, and for what is sent behind an upgrade before its answer, of all requests together.',
      ),
    inspectMs: positiveMilliseconds.default(10_000).describe('Time for such a body to arrive; then 408.'),
    hookedBytes: bytes
      .default(67_108_864)
      .describe('Memory for bodies and answers that are read for hooks, of all together.'),
    keyedBytes: bytes
      .default(67_108_864)
      .describe('Memory for bodies and answers of writes with an Idempotency-Key, of all together.'),
  })
  .prefault({})
  .describe('Bounds of one proxy process.');
