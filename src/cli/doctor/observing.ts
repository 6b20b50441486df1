/** Checks of a deployment that only observes: what it needs is a legacy to pass everything on to. */
import type { Config } from '../../config/schema.ts';
import { connectRedis, describe } from '../../ledger/connection.ts';
import { RedisLedger } from '../../ledger/ledger.ts';
import { fail, type Finding, ok, sentenceOf, warn } from './finding.ts';
import { checkDataDir, checkProxyPort } from './machine.ts';
import { checkIdentity, checkListeningTls, checkPartitionNames, checkPinnedRoutes } from './settings.ts';
import { checkReach } from './stores.ts';

export async function checkObserving(config: Config): Promise<Finding[]> {
  const [legacy, ledger, port] = await Promise.all([
    checkReach(config, 'legacy'),
    checkLedger(config),
    checkProxyPort(config),
  ]);
  const mode = ok(
    'proxy.mode',
    'observe: everything goes to legacy, nothing is copied or moved, what enforcing would do is recorded',
  );
  const identity =
    config.identity.length > 0
      ? checkIdentity(config)
      : [
          warn(
            'identity',
            'there are no rules, so every request is recorded as one without an identity',
            'See docs/identity.md.',
          ),
        ];
  return [
    mode,
    ...identity,
    ...checkPartitionNames(config),
    ...checkPinnedRoutes(config),
    ...checkListeningTls(config),
    ...ledger,
    checkDataDir(config.dataDir),
    ...legacy,
    port,
  ];
}

async function checkLedger({ redis: { url }, ledger }: Config): Promise<Finding[]> {
  if (url === 'embedded') return [];
  let redis;
  try {
    redis = await connectRedis({ url });
  } catch (error) {
    const advice = 'Start it, or leave redis.url out: an observing proxy needs no Redis, unless it is named.';
    return [fail('redis', sentenceOf(error), advice)];
  }
  try {
    const { minReplicas } = ledger;
    const touched = await new RedisLedger(redis, { defaultOwner: 'legacy', minReplicas }).touched();
    const moved = [...touched.values()].filter(
      ({ ownership }) => ownership.owner !== 'legacy' || ownership.phase !== 'open',
    );
    if (moved.length === 0)
      return [ok('redis', `${describe({ url })} answers, and everything lives in legacy`)];
    const detail = `${moved.length} partitions do not live in legacy: an observing proxy does not start`;
    return [fail('redis', detail, 'Set proxy.mode to enforce.')];
  } catch (error) {
    return [
      fail('redis', `${describe({ url })} did not answer: ${sentenceOf(error)}`, 'Check its access rules.'),
    ];
  } finally {
    redis.disconnect();
  }
}
