/** Dates as platforms write them, so that versions can be compared and asked for: each in the notation it came in. */

export type Notation =
  /** ISO 8601 (RFC 3339), with its offset or in UTC; the others are in UTC where they name no zone. */
  'iso' | 'sql' | 'day' | 'http' | 'seconds' | 'milliseconds' | 'basic' | 'dotnet';

export interface Instant {
  /** Since 1970, whole. */
  readonly ms: number;
  /** Digits of the fraction of a second behind the milliseconds, without zeros at the end. */
  readonly finer: string;
  readonly notation: Notation;
  /** The text says in which zone it is; without one it can mean another time to whoever wrote it. */
  readonly zoned: boolean;
}

const dated =
  /^(\d{4})-(\d\d)-(\d\d)(?:([Tt ])(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?$/;
const basicForm = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(Z?)$/;
/** IMF-fixdate and RFC 850 (RFC 9110, 5.6.7), asctime, and dates of mail (RFC 5322). */
const httpForm =
  /^[A-Z][a-z]{2,8},? (?:\d{1,2}[ -][A-Z][a-z]{2}[ -]\d{2,4} |[A-Z][a-z]{2} [ \d]\d )\d\d:\d\d:\d\d/;
const dotnetForm = /^\/Date\((-?\d{1,16})(?:[+-]\d{4})?\)\/$/;
/** From 2001 until 2286: shorter numbers are counters. */
const secondsForm = /^(\d{10})(?:\.(\d+))?$/;
const millisecondsForm = /^(\d{13})(?:\.\d+)?$/;

/** Undefined for what is no date in a usual notation. */
export function instantIn(text: string): Instant | undefined {
  const found =
    datedIn(text) ??
    numbered(text) ??
    otherwise(text, basicForm, 'basic') ??
    otherwise(text, httpForm, 'http');
  return found === undefined || Number.isNaN(found.ms) ? undefined : found;
}

function datedIn(text: string): Instant | undefined {
  const parts = dated.exec(text);
  if (parts === null) return undefined;
  const [, year, month, day, between, hour = '00', minute = '00', second = '00', fraction = '', zone] = parts;
  const sharp = fraction.slice(0, 3).padEnd(3, '0');
  const offset = zone === undefined || /^(z|utc|gmt)$/i.test(zone) ? 'Z' : offsetOf(zone);
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${sharp}${offset}`);
  const zoned = zone !== undefined;
  // "YYYY-MM-DD hh:mm:ss" has no place for a zone, and whoever names one is understood only with it.
  const notation = between === undefined ? 'day' : between === ' ' && !zoned ? 'sql' : 'iso';
  return { ms, finer: fraction.slice(3).replace(/0+$/, ''), notation, zoned };
}

/** As `+05:30`; platforms write `+05` and `+0530`, too. */
function offsetOf(zone: string): string {
  const digits = zone.slice(1).replace(':', '').padEnd(4, '0');
  return `${zone.slice(0, 1)}${digits.slice(0, 2)}:${digits.slice(2)}`;
}

function numbered(text: string): Instant | undefined {
  const seconds = secondsForm.exec(text);
  if (seconds !== null) {
    const [, whole, fraction = ''] = seconds;
    const ms = Number(whole) * 1_000 + Number(fraction.slice(0, 3).padEnd(3, '0'));
    return { ms, finer: fraction.slice(3).replace(/0+$/, ''), notation: 'seconds', zoned: true };
  }
  const milliseconds = millisecondsForm.exec(text);
  if (milliseconds !== null) {
    return { ms: Number(milliseconds[1]), finer: '', notation: 'milliseconds', zoned: true };
  }
  const dotnet = dotnetForm.exec(text);
  return dotnet === null ? undefined : { ms: Number(dotnet[1]), finer: '', notation: 'dotnet', zoned: true };
}

function otherwise(text: string, form: RegExp, notation: 'basic' | 'http'): Instant | undefined {
  const parts = form.exec(text);
  if (parts === null) return undefined;
  if (notation === 'basic') {
    const [, year, month, day, hour, minute, second, zone] = parts;
    const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
    return { ms, finer: '', notation, zoned: zone === 'Z' };
  }
  // One that names no zone is in UTC, and not in that of this process.
  const zoned = /(?:[A-Z]{2,4}|[+-]\d{4})$/.test(text);
  const whole = zoned ? text : `${text} GMT`;
  const ms = Date.parse(whole.replaceAll(/(\d)-([A-Z][a-z]{2})-(\d)/g, '$1 $2 $3'));
  return { ms, finer: '', notation, zoned };
}

/** The instant in a notation; where that is coarser, the last one before it that it can name. */
export function writeInstant(ms: number, notation: Notation): string {
  const iso = new Date(ms).toISOString();
  switch (notation) {
    case 'iso':
      return iso;
    case 'sql':
      return iso.slice(0, 19).replace('T', ' ');
    case 'day':
      return iso.slice(0, 10);
    case 'http':
      return new Date(ms).toUTCString();
    case 'seconds':
      return String(Math.floor(ms / 1_000));
    case 'milliseconds':
      return String(Math.floor(ms));
    case 'basic':
      return `${iso.slice(0, 19).replaceAll(/[-:]/g, '')}Z`;
    case 'dotnet':
      return `/Date(${Math.floor(ms)})/`;
  }
}

/** Negative where `left` is the earlier one. */
export function compareInstants(left: Instant, right: Instant): number {
  if (left.ms !== right.ms) return left.ms - right.ms;
  return left.finer < right.finer ? -1 : left.finer > right.finer ? 1 : 0;
}
