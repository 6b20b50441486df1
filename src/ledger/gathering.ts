/**
 * Sends what one turn of the event loop has for Redis in one write: a coordinator with a hundred handoffs under way
 * would else pay one system call for each command. The order of the bytes is the order in which they were asked for,
 * as without it, so nothing else changes.
 */
import type { Redis } from 'ioredis';

const gatheredMax = 16;

/** From the next connection on; call it before the first. */
export function gatherWrites(redis: Redis): void {
  redis.on('connect', () => {
    const { stream } = redis;
    const write = stream.write.bind(stream);
    let corked = false;
    let gathered = 0;
    const uncork = (): void => {
      corked = false;
      stream.uncork();
    };
    stream.write = ((...given: Parameters<typeof write>) => {
      if (!corked) {
        corked = true;
        gathered = 0;
        stream.cork();
        setImmediate(uncork);
      }
      const sent = write(...given);
      gathered += 1;
      if (gathered >= gatheredMax) {
        // A long turn must not keep Redis waiting for all that it will bring.
        gathered = 0;
        stream.uncork();
        stream.cork();
      }
      return sent;
    }) as typeof stream.write;
  });
}
