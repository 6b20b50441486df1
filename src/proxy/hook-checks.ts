/** What a hook may say: whatever else it says is its failure, and is never sent. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { whyUntouchable } from '../config/shaping-checks.ts';
import type { HeaderField, RequestRefusal } from './hook.ts';

/** The hook says that the request is wrong; not a failure of it. */
export class HookRefused extends Error {
  readonly status: 400 | 422;
  readonly detail: string;

  constructor({ refuse, detail }: RequestRefusal) {
    super('the hook refused the request');
    this.status = refuse;
    this.detail = detail;
  }
}

export const requestKeys = ['method', 'target', 'headers', 'body'] as const;
export const answerKeys = ['status', 'headers', 'body'] as const;
const refusalKeys = ['refuse', 'detail'] as const;

/** What a hook returned, whose keys must all be known: one that is misspelt would have no effect. */
export function checkedChange<Change extends object>(
  change: Change | undefined | void,
  keys: readonly string[],
): Partial<Change> {
  if (change === undefined || change === null) return {};
  if (typeof change !== 'object') throw new TypeError(`it returned a ${typeof change}, which says no change`);
  const unknown = Object.keys(change).find((key) => !keys.includes(key));
  if (unknown === undefined) return change;
  throw new TypeError(`it returned the key ${unknown}, which means nothing; there are ${keys.join(', ')}`);
}

/** Throws the refusal, where there is one. */
export function mustNotRefuse(change: object | undefined | void): void {
  if (typeof change !== 'object' || change === null || !('refuse' in change)) return;
  const { refuse, detail } = checkedChange(change as Partial<RequestRefusal>, refusalKeys);
  if (refuse !== 400 && refuse !== 422)
    throw new TypeError('it refuses with a status that is not 400 or 422');
  if (typeof detail !== 'string' || detail === '') throw new TypeError('it refuses without a detail');
  throw new HookRefused({ refuse, detail });
}

/** Where in the hook's own file it went wrong, `file:line:column`; undefined where no frame is of it. */
export function placeIn(file: string, cause: Error): string | undefined {
  const url = pathToFileURL(resolve(file)).href;
  for (const frame of cause.stack?.split('\n').slice(1) ?? []) {
    const at = frame.indexOf(url);
    const place = at < 0 ? undefined : /^:\d+:\d+/.exec(frame.slice(at + url.length))?.[0];
    if (place !== undefined) return `${file}${place}`;
  }
  return undefined;
}

export function fieldsOf(headers: readonly string[]): HeaderField[] {
  const fields: HeaderField[] = [];
  for (let at = 0; at < headers.length; at += 2) fields.push([headers[at] ?? '', headers[at + 1] ?? '']);
  return fields;
}

export function flat(fields: readonly HeaderField[]): string[] {
  for (const [name, value] of fields) {
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/i.test(name)) throw new TypeError('it names a header that cannot be');
    if (typeof value !== 'string' || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
      throw new TypeError(`the value of the header ${name} cannot be sent`);
    }
  }
  return fields.flat();
}

export function namesOf(headers: readonly string[]): string[] {
  return headers.filter((_text, at) => at % 2 === 0);
}

/** What frames or belongs to the connection is written by the proxy, and Onewriter-* says only what it says. */
export function mustBeTouchable(name: string): void {
  const why = whyUntouchable(name);
  if (why !== undefined && name.toLowerCase() !== 'content-length') {
    throw new TypeError(`it sets the header ${name}, which ${why}`);
  }
}

export function withoutLength(headers: readonly string[]): string[] {
  return headers.filter((_text, at) => headers[at - (at % 2)]?.toLowerCase() !== 'content-length');
}

/** Only who asked without wanting a body gets an answer that has a length and no body. */
export function checkedMethod(method: string, asked: string): string {
  const never = ['CONNECT', 'TRACE', ...(asked === 'HEAD' ? [] : ['HEAD'])];
  if (/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(method) && !never.includes(method)) return method;
  throw new TypeError('its method cannot be sent');
}

export function checkedTarget(target: string): string {
  if (typeof target === 'string' && /^\/[\x21-\x7e\x80-\xff]*$/.test(target)) return target;
  throw new TypeError('its target is no path that can be sent');
}

export function checkedStatus(status: number): number {
  if (Number.isInteger(status) && status >= 200 && status <= 999) return status;
  throw new TypeError('its status is none of a final answer');
}

export function checkedBody(body: Buffer): Buffer {
  if (Buffer.isBuffer(body)) return body;
  throw new TypeError('its body is no Buffer');
}
