/**
 * A hook is an operator's own module that gives requests the form which one store understands, and its answers the
 * form which clients expect, where the two APIs differ in more than headers and a path. Clients see one API; who
 * they are, what they ask for and which store takes it was decided before, from what they sent.
 *
 * This file is the hook's interface and its loading; hooked-upstream.ts calls it.
 */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Config } from '../config/schema.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import type { Access } from '../core/route.ts';
import { sentenceOf } from '../log.ts';

/** A header field; names as they were sent, a field that is there several times is several entries. */
export type HeaderField = readonly [name: string, value: string];

/** What a client asks for. `headers` are without those of the connection, and without Host. */
export interface HookRequest {
  readonly method: string;
  /** Path and query as the client sent them (origin form, RFC 9112, 3.2.1), without the path of the store's URL. */
  readonly target: string;
  readonly headers: readonly HeaderField[];
  readonly access: Access;
  /** Who it acts for; left out where nobody said so. */
  readonly user?: string;
  /** Left out for pinned routes and for reads of nobody in particular. */
  readonly partition?: string;
}

/** A final answer of the store (never 1xx). */
export interface HookAnswer {
  readonly status: number;
  readonly headers: readonly HeaderField[];
}

/** Bytes as they travel, still encoded where Content-Encoding says so. */
export interface WithBody {
  /** Left out where `readsBody` or `readsAnswerBody` did not ask for it, and where there is none. */
  readonly body?: Buffer;
}

/** What is left out stays as it was. */
export type RequestChange = Partial<Pick<HookRequest, 'method' | 'target' | 'headers'> & WithBody>;
export type AnswerChange = Partial<HookAnswer & WithBody>;

/** Says in the store's place that the request is wrong: nothing is sent, and the client gets `detail`. */
export interface RequestRefusal {
  /** 400: it cannot be read; 422: what it says cannot be done. */
  readonly refuse: 400 | 422;
  /** One sentence for the client: what is wrong with the request. */
  readonly detail: string;
}

type Perhaps<Change> = Change | undefined | void;

/** All parts are optional. What throws, or takes longer than `timeoutMs`, fails the one request. */
export interface StoreHook {
  /** Must the body be there for `request`? It is then read whole first, up to `bodyBytes`. */
  readonly readsBody?: (request: HookRequest) => boolean;
  readonly request?: (
    request: HookRequest & WithBody,
  ) => Perhaps<RequestChange | RequestRefusal> | Promise<Perhaps<RequestChange | RequestRefusal>>;
  /** Must the body be there for `answer`? Never say so for answers without an end, like event streams. */
  readonly readsAnswerBody?: (answer: HookAnswer, request: HookRequest) => boolean;
  readonly answer?: (
    answer: HookAnswer & WithBody,
    request: HookRequest,
  ) => Perhaps<AnswerChange> | Promise<Perhaps<AnswerChange>>;
}

export type Hooks = Readonly<Partial<Record<StoreName, StoreHook>>>;

const parts = ['readsBody', 'request', 'readsAnswerBody', 'answer'] as const;

/** Loads the modules of `stores.<name>.hook`. Rejects, naming the setting, where one cannot be used. */
export async function loadHooks(config: Pick<Config, 'stores'>): Promise<Hooks> {
  const hooks: Partial<Record<StoreName, StoreHook>> = {};
  for (const name of storeNames) {
    const hook = await loadHook(name, config);
    if (hook !== undefined) hooks[name] = hook;
  }
  return hooks;
}

export async function loadHook(
  name: StoreName,
  { stores }: Pick<Config, 'stores'>,
): Promise<StoreHook | undefined> {
  const file = stores[name].hook?.file;
  if (file === undefined) return undefined;
  const setting = `stores.${name}.hook.file`;
  const refuse = (why: string, cause?: unknown): never => {
    throw new Error(`${setting}: ${file} cannot be used: ${why}. Nothing was started.`, { cause });
  };
  let loaded: Record<string, unknown>;
  try {
    loaded = (await import(pathToFileURL(resolve(file)).href)) as Record<string, unknown>;
  } catch (error) {
    return refuse(sentenceOf(error), error);
  }
  const { hook } = loaded;
  if (typeof hook !== 'object' || hook === null) return refuse('it exports no object of the name hook');
  const known: ReadonlySet<string> = new Set(parts);
  for (const [part, value] of Object.entries(hook)) {
    if (!known.has(part)) refuse(`a hook has no part ${part}; its parts are ${parts.join(', ')}`);
    if (typeof value !== 'function') refuse(`${part} is not a function`);
  }
  if (!('request' in hook) && !('answer' in hook)) refuse('it has neither request nor answer');
  return hook;
}
