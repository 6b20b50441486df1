/** Could Redis lose a transition that it has answered? Asked before every flip. */
import type { Redis } from 'ioredis';

/** One sentence for each way in which a confirmed transition could be lost; empty when there is none. */
export async function durabilityGaps(redis: Redis, minReplicas: number): Promise<string[]> {
  const gaps: string[] = [];
  const info = parseInfo(await redis.info());
  const setting = async (name: string): Promise<string | undefined> => {
    try {
      const answer = (await redis.config('GET', name)) as string[];
      return answer[1];
    } catch {
      // Managed services forbid CONFIG; INFO then has to do.
      return undefined;
    }
  };
  const policy = info['maxmemory_policy'];
  if (policy !== undefined && policy !== 'noeviction') {
    gaps.push(`Redis may evict keys (maxmemory-policy ${policy}): set it to noeviction.`);
  }
  if (info['role'] === 'slave') {
    gaps.push('Redis at this address is a replica, which takes no writes: point redis.url at the master.');
  }
  gaps.push(...replicaGaps(info, minReplicas));
  if (minReplicas > 0 && info['aof_enabled'] === '0' && (await setting('save')) === '') {
    gaps.push(
      'Redis keeps nothing on disk: a master that restarts comes back empty, and its replicas follow it. ' +
        'Set appendonly yes.',
    );
  }
  if (minReplicas === 0) {
    if (info['aof_enabled'] !== '1') {
      gaps.push(
        'Redis keeps no append-only file: set appendonly yes and appendfsync always, or use replicas.',
      );
    } else {
      const fsync = await setting('appendfsync');
      if (fsync !== undefined && fsync !== 'always') {
        gaps.push(`Redis writes its append-only file late (appendfsync ${fsync}): set appendfsync always.`);
      }
      if (fsync === undefined) {
        gaps.push(
          'Redis does not tell its appendfsync setting (CONFIG is forbidden), so it cannot be checked.',
        );
      }
    }
  }
  return gaps;
}

/** `minReplicas` must be exactly what can be promoted: fewer confirm nothing, one more can be the wrong one. */
function replicaGaps(info: Record<string, string>, minReplicas: number): string[] {
  const connected = Number(info['connected_slaves'] ?? 0);
  const online = Object.entries(info).filter(
    ([name, value]) => /^slave\d+$/.test(name) && value.includes('state=online'),
  ).length;
  if (connected > minReplicas) {
    return [
      `Redis has ${connected} replicas, ledger.minReplicas is ${minReplicas}: ` +
        `a replica that was not waited for could be promoted. Set ledger.minReplicas to ${connected}.`,
    ];
  }
  if (online < minReplicas) {
    return [
      `Redis has ${online} replicas in step, ledger.minReplicas is ${minReplicas}: no transition can be ` +
        'confirmed, so writes are refused once the leases lapse. Start the missing replicas.',
    ];
  }
  return [];
}

function parseInfo(text: string): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const line of text.split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1);
  }
  return fields;
}
