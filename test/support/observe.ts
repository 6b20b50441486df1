/** An observing proxy between raw clients and a raw legacy, beside an app that should never hear of anything. */
import { createSecretKey } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsOptions } from 'node:tls';
import { observationLine } from '../../src/config/observation.ts';
import type { Config } from '../../src/config/schema.ts';
import type { Observation, ObservationLine } from '../../src/core/observation.ts';
import { Notes } from '../../src/proxy/observe/notes.ts';
import { createObserver, type Observer, type ObserverLimits } from '../../src/proxy/observe/observer.ts';
import { configOf } from './proxy.ts';
import { type RawAnswer, RawUpstream } from './raw-http.ts';
import { until } from './until.ts';

export interface ObserveRig {
  readonly observer: Observer;
  readonly port: number;
  readonly legacy: RawUpstream;
  readonly app: RawUpstream;
  readonly config: Config;
  readonly directory: string;
  readonly logged: { readonly event: string; readonly fields: Record<string, unknown> }[];
  /** Records of requests, once so many are on disk. */
  noted(count: number): Promise<Observation[]>;
  stop(): Promise<void>;
}

export async function startObserveRig(
  options: {
    readonly config?: Record<string, unknown>;
    readonly proxy?: Record<string, unknown>;
    readonly legacy?: Record<string, unknown>;
    readonly answer?: RawAnswer;
    readonly prefix?: string;
    readonly tls?: TlsOptions;
    readonly limits?: Partial<ObserverLimits>;
  } = {},
): Promise<ObserveRig> {
  const [legacy, app] = await Promise.all([
    RawUpstream.start(options.answer, options.tls),
    RawUpstream.start(options.answer),
  ]);
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-observe-'));
  const logged: ObserveRig['logged'] = [];
  const log = (_level: string, event: string, fields: Record<string, unknown> = {}): void =>
    void logged.push({ event, fields });
  const config = configOf({
    proxy: { port: 0, mode: 'observe', observe: { users: 'plain' }, ...options.proxy },
    stores: {
      legacy: { url: legacy.url + (options.prefix ?? ''), ...options.legacy },
      app: { url: app.url },
    },
    ...options.config,
  });
  const { observe } = config.proxy;
  const key = createSecretKey(Buffer.alloc(32, 7));
  const notes = new Notes({ directory, run: 'rig', key, observe, log });
  const observer = createObserver({ config, notes, log, limits: options.limits ?? {} });
  const { port } = await observer.listen();
  return {
    ...{ observer, port, legacy, app, config, directory, logged },
    noted: async (count) =>
      until(`${count} requests are noted`, () => {
        const found = requestsIn(directory);
        return found.length >= count && found;
      }),
    stop: async () => {
      await observer.stop();
      await Promise.all([legacy.stop(), app.stop()]);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** `torn`: lines that were cut short are left out. */
export function linesIn(directory: string, { torn = false } = {}): ObservationLine[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.ndjson'))
    .toSorted()
    .flatMap((name) => readFileSync(join(directory, name), 'utf8').split('\n').slice(0, -1))
    .filter((line) => line !== '')
    .filter((line) => !torn || line.endsWith('}'))
    .map((line) => observationLine.parse(JSON.parse(line)));
}

export function requestsIn(directory: string): Observation[] {
  return linesIn(directory).filter((line) => line.type === 'request');
}
