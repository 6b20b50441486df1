/** Checks of the ledger's Redis: is it there, is it new enough, could it lose what it has answered. */
import type { Redis } from 'ioredis';
import type { Config } from '../../config/schema.ts';
import { sayCompleteness } from '../../core/homes.ts';
import { RedisRegistry } from '../../ledger/books.ts';
import { connectRedis, describe } from '../../ledger/connection.ts';
import { durabilityGaps } from '../../ledger/durability.ts';
import { attachEmbeddedRedis, EmbeddedRedisFailure, findBinary } from '../../ledger/embedded.ts';
import { readRegression } from '../../ledger/regression.ts';
import type { Environment } from '../command.ts';
import { fail, type Finding, ok, sentenceOf, warn } from './finding.ts';
import { checkDataDir } from './machine.ts';

/** The oldest that was tried. Valkey names the version of Redis that it began from. */
const redisNeeded = [7, 0] as const;

export async function checkRedis(config: Config, env: Environment): Promise<Finding[]> {
  if (config.redis.url === 'embedded') {
    return [checkBinary(env), checkDataDir(config.dataDir), ...(await checkRunningLedger(config.dataDir))];
  }
  const address = { url: config.redis.url };
  const where = describe(address);
  let redis;
  try {
    redis = await connectRedis(address);
  } catch (error) {
    return [fail('redis', sentenceOf(error), 'Start it, or correct redis.url.')];
  }
  try {
    const info = await redis.info('server');
    const findings = [checkVersion(where, /^redis_version:(\S+)/m.exec(info)?.[1] ?? '0')];
    const gaps = await durabilityGaps(redis, config.ledger.minReplicas);
    for (const gap of gaps) {
      findings.push(
        config.ledger.acceptLoss
          ? warn('redis durability', gap, 'Accepted by ledger.acceptLoss; a failover can lose a transition.')
          : fail('redis durability', gap, 'Flips are refused until this is mended.'),
      );
    }
    findings.push(...(await checkLedger(redis)));
    if (config.newPartitions === 'app') findings.push(await checkRegistry(new RedisRegistry(redis)));
    if (gaps.length === 0) findings.push(ok('redis durability', 'a confirmed transition cannot be lost'));
    return findings;
  } catch (error) {
    return [fail('redis', `${where} did not answer: ${sentenceOf(error)}`, 'Check its access rules (INFO).')];
  } finally {
    redis.disconnect();
  }
}

async function checkLedger(redis: Redis): Promise<Finding[]> {
  const lost = await readRegression(redis);
  if (lost === undefined) return [];
  const detail = `the ledger lost data: ${lost.detail}. Writes are refused, and nothing is copied or moved`;
  return [fail('ledger', detail, 'Restore it: onewriter ledger restore --from member --plan --reason TEXT.')];
}

/** The embedded server runs only where `onewriter up` does. */
async function checkRunningLedger(dataDir: string): Promise<Finding[]> {
  let redis: Redis | undefined;
  try {
    redis = await connectRedis(await attachEmbeddedRedis(dataDir));
    return await checkLedger(redis);
  } catch (error) {
    if (error instanceof EmbeddedRedisFailure) return [];
    const advice = `See redis/redis.log in ${dataDir}.`;
    return [fail('redis', `the embedded server did not answer: ${sentenceOf(error)}`, advice)];
  } finally {
    redis?.disconnect();
  }
}

async function checkRegistry(registry: RedisRegistry): Promise<Finding> {
  const known = await registry.completeness();
  if (known.complete) return ok('registry', sayCompleteness(known));
  return warn('registry', sayCompleteness(known), 'Until then newPartitions: app has no effect.');
}

function checkVersion(where: string, version: string): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const enough = major > redisNeeded[0] || (major === redisNeeded[0] && minor >= redisNeeded[1]);
  if (enough) return ok('redis', `${where} answers, version ${version}`);
  return fail('redis', `${where} has version ${version}`, `Use ${redisNeeded.join('.')} or newer.`);
}

function checkBinary(env: Environment): Finding {
  try {
    return ok('redis', `embedded, with ${findBinary(env)}`);
  } catch (error) {
    return fail('redis', sentenceOf(error), 'Install redis-server, or set redis.url.');
  }
}
