/**
 * JSON numbers are read as doubles, which cannot hold every number that a platform writes: 9007199254740997
 * would become ...996, another record's id. What holds such a number is remembered, and is not copied.
 */
import { cutBelow, nestingMax } from './nesting.ts';

const inexact = new WeakSet<object>();
/** Cheap test: without one of these, every number is exact. Up to 15 significant digits a double keeps. */
const suspicious = /\d[\d.]{15}|\d[eE][+-]?\d/;
/** So many significant digits tell all doubles apart. */
const digitsOfDouble = 17;

/** A key of one escaped character. Written out it means the same. */
const shortEscapedKey = /"\\u([0-9a-fA-F]{4})"(?=\s*:)/g;

/** Like JSON.parse; objects and arrays with a number that was changed are known to `isInexact` afterwards. */
export function parseExactly(answer: string): unknown {
  // V8 of Node 24 gives such a key the name of another one that it has met at the same place before.
  const text = answer.includes('"\\u') ? answer.replaceAll(shortEscapedKey, writtenOut) : answer;
  if (!suspicious.test(text)) return JSON.parse(text);
  // What is cut off is deeper than any record that is copied, and so is what is left of it.
  const shallow = cutBelow(text, 2 * nestingMax);
  if (shallow !== text) JSON.parse(text);
  const parse = JSON.parse as (
    text: string,
    reviver: (this: object, key: string, value: unknown, context: { readonly source?: string }) => unknown,
  ) => unknown;
  return parse(shallow, function note(_key, value, { source = '' }) {
    const changed =
      typeof value === 'number'
        ? wasChanged(source, value)
        : typeof value === 'object' && value !== null && inexact.has(value);
    if (changed) inexact.add(this);
    return value;
  });
}

function writtenOut(key: string, hex: string): string {
  const character = String.fromCharCode(Number.parseInt(hex, 16));
  const mustStayEscaped = /[\p{Cc}\p{Cs}"\\]/u.test(character);
  return mustStayEscaped ? key : `"${character}"`;
}

export function isInexact(value: object): boolean {
  return inexact.has(value);
}

/** Undefined where a double cannot hold the number, or the text is none. */
export function exactNumber(text: string): number | undefined {
  if (!/^-?\d+(\.\d+)?$/.test(text)) return undefined;
  const value = Number(text);
  return wasChanged(text, value) ? undefined : value;
}

/**
 * A number is kept if it is printed again as it was written. 0.10000000000000001 is kept, too: so C and older PHP print
 * the double 0.1, and whoever reads it as a double reads the same one. A whole number can be an id, and gets no such leave.
 */
function wasChanged(source: string, value: number): boolean {
  if (!Number.isFinite(value)) return true;
  if (isSameDecimal(source, String(value))) return false;
  return !/[.eE]/.test(source) || !isSameDecimal(source, value.toPrecision(digitsOfDouble));
}

function isSameDecimal(left: string, right: string): boolean {
  const [a, b] = [significand(left), significand(right)];
  return a.digits === b.digits && a.exponent === b.exponent;
}

function significand(text: string): { readonly digits: string; readonly exponent: number } {
  const [, whole = '', fraction = '', exponent = '0'] =
    /^-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
  const all = (whole + fraction).replace(/^0+/, '');
  const digits = all.replace(/0+$/, '');
  if (digits === '') return { digits, exponent: 0 };
  return { digits, exponent: Number(exponent) - fraction.length + all.length - digits.length };
}
