/**
 * Values of rows as JSON, the same for all databases and settings, and back. PostgreSQL itself turns a row into JSON
 * and JSON into a row, so every type works; only what JSON has no form for is translated here.
 */
import type { Fields, Json } from '../../core/records.ts';
import { exactNumber } from '../rest/exact-json.ts';
import type { Column } from './table.ts';
import { quoted } from './names.ts';

/** The column in a query whose rows become JSON. Numbers come as text, so that none is rounded on the way. */
export function selected({ name, form }: Column): string {
  const column = `t.${quoted(name)}`;
  return `${form === 'number' || form === 'text' ? `${column}::text` : column} AS ${quoted(name)}`;
}

export function fromRow(columns: ReadonlyMap<string, Column>, row: Fields): Fields {
  const given = Object.entries(row).map(([name, value]): [string, Json] => {
    const column = columns.get(name);
    return [name, column === undefined || typeof value !== 'string' ? value : fromText(column, value)];
  });
  return Object.fromEntries(given);
}

function fromText({ form }: Column, text: string): Json {
  switch (form) {
    case 'number':
      return exactNumber(text) ?? text;
    case 'bytes':
      return Buffer.from(text.slice('\\x'.length), 'hex').toString('base64');
    case 'zoned':
      return text.replace(/\+00:00$/, 'Z');
    case 'utc':
      return /^\d{4,}-.*\d$/.test(text) ? `${text}Z` : text;
    case 'plain':
    case 'text':
      return text;
  }
}

/** As PostgreSQL reads it for this column; undefined where the column cannot hold it. */
export function toRow({ form }: Column, value: Json): Json | undefined {
  if (typeof value !== 'string') return value;
  if (form === 'bytes')
    return isBase64(value) ? `\\x${Buffer.from(value, 'base64').toString('hex')}` : undefined;
  return form === 'utc' ? withoutZone(value) : value;
}

function isBase64(text: string): boolean {
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}

const instant = /^(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(\.\d+)?(Z|[+-]\d\d:?\d\d)$/;

/** A timestamp drops what is said of the zone, so its instant is told in UTC. */
function withoutZone(text: string): string {
  const [, day = '', fraction = '', zone = ''] = instant.exec(text) ?? [];
  const ms = day === '' ? Number.NaN : Date.parse(`${day}${zone}`);
  return Number.isNaN(ms) ? text : `${new Date(ms).toISOString().slice(0, 19)}${fraction}`;
}
