/** All checks of `doctor`, in the order in which they are shown. */
import { loadConfig } from '../../config/load.ts';
import type { Environment } from '../command.ts';
import { fail, type Finding, ok, warn } from './finding.ts';
import { checkNode, checkPorts, checkProcesses } from './machine.ts';
import { checkObserving } from './observing.ts';
import { checkRedis } from './redis.ts';
import {
  checkIdentity,
  checkListening,
  checkListeningTls,
  checkPartitionNames,
  checkPinnedRoutes,
  checkTokens,
} from './settings.ts';
import { checkStore } from './stores.ts';

function adviceOn(message: string, configPath: string): string {
  const [, name] = /environment variable (\w+), which is not set/.exec(message) ?? [];
  if (name === undefined) return `Correct it in ${configPath}.`;
  return `export ${name}=… in the shell, or wherever onewriter gets its environment from, and run doctor again.`;
}

/** Reads only. Where the configuration does not load, its problems are all there is to say. */
export async function examine(
  configPath: string,
  env: Environment,
  asked: { readonly probeWrites: boolean },
): Promise<Finding[]> {
  const node = checkNode(process.versions.node);
  const loaded = loadConfig({ path: configPath, env });
  if (!loaded.ok) {
    const problems = loaded.problems.map(({ path, message }) =>
      fail(path === '' ? 'config' : `config ${path}`, message, adviceOn(message, configPath)),
    );
    return [node, ...problems];
  }
  const { config } = loaded;
  const first = [
    node,
    ok('config', loaded.path),
    ...loaded.warnings.map((warning) => warn('config', warning, 'See docs/configuration.md.')),
  ];
  if (config.proxy.mode === 'observe') return [...first, ...(await checkObserving(config))];
  const [redis, legacy, app, ports] = await Promise.all([
    checkRedis(config, env),
    checkStore(config, 'legacy', asked),
    checkStore(config, 'app', asked),
    checkPorts(config),
  ]);
  return [
    ...first,
    checkTokens(config),
    ...checkListening(config),
    ...checkListeningTls(config),
    ...checkIdentity(config),
    ...checkPartitionNames(config),
    ...checkPinnedRoutes(config),
    ...redis,
    ...legacy,
    ...app,
    ...ports,
    ...checkProcesses(config),
  ];
}
