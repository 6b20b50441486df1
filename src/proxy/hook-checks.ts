/** What a hook may say: whatever else it says is its failure, and is never sent. */
import { whyUntouchable } from '../config/shaping-checks.ts';
import type { HeaderField } from './hook.ts';

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
