/** A member's answer to a fence, on its way to the coordinator. */
import type { Redis } from 'ioredis';
import type { Acknowledgement } from '../core/member.ts';
import { pause } from '../pause.ts';
import { keys } from './connection.ts';

const acknowledgementsKept = 100_000;
const tries = 5;
const againMs = 50;

/** Saying it twice is harmless; not saying it costs the user the whole drain time. */
export async function sendAcknowledgement(
  redis: Redis,
  member: string,
  acknowledgement: Acknowledgement,
): Promise<void> {
  const json = JSON.stringify({ ...acknowledgement, member });
  for (let tried = 1; ; tried += 1) {
    try {
      await redis.xadd(keys.acknowledgements, 'MAXLEN', '~', acknowledgementsKept, '*', 'json', json);
      return;
    } catch (error) {
      if (tried === tries) throw error;
      await pause(againMs);
    }
  }
}
