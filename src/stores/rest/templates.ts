/** Bodies of configured calls: placeholders in their texts are filled in with what a call is about. */
import { StoreFailure } from '../../core/ports.ts';
import type { Fields, Json } from '../../core/records.ts';
import { isFields, valueAt } from './paths.ts';

/** Undefined: there is none, and what names it is left out. */
export type BodyValues = Readonly<Record<string, Json | undefined>>;

const anywhere = /\{([a-zA-Z]+(?:\.[^{}:]+)?)(:number)?\}/g;
const whole = /^\{([a-zA-Z]+(?:\.[^{}:]+)?)(:number)?\}$/;

/** Names in the texts of a body, without `:number` and without the path behind a dot. */
export function placeholdersInBody(template: unknown): string[] {
  if (typeof template === 'string') {
    return [...template.matchAll(anywhere)].map(([, name = '']) => name.split('.')[0] ?? '');
  }
  if (typeof template !== 'object' || template === null) return [];
  return Object.values(template).flatMap(placeholdersInBody);
}

/** Throws StoreFailure `rejected` where a `:number` is none. */
export function fillBody(template: Readonly<Record<string, unknown>>, values: BodyValues): Json {
  return filled(template as Fields, values) ?? {};
}

function filled(template: Json, values: BodyValues): Json | undefined {
  if (typeof template === 'string') return filledText(template, values);
  if (Array.isArray(template)) {
    return template.flatMap((entry: Json) => {
      const value = filled(entry, values);
      return value === undefined ? [] : [value];
    });
  }
  if (!isFields(template)) return template;
  const members = Object.entries(template).flatMap(([name, entry]): [string, Json][] => {
    const value = filled(entry, values);
    return value === undefined ? [] : [[name, value]];
  });
  return Object.fromEntries(members);
}

function filledText(text: string, values: BodyValues): Json | undefined {
  const alone = whole.exec(text);
  if (alone !== null) return typed(lookUp(alone[1] ?? '', values), alone[2] !== undefined, text);
  let complete = true;
  const all = text.replaceAll(anywhere, (_, name: string) => {
    const value = lookUp(name, values);
    if (value === undefined || value === null) complete = false;
    return typeof value === 'object' ? JSON.stringify(value) : String(value);
  });
  return complete ? all : undefined;
}

function lookUp(name: string, values: BodyValues): Json | undefined {
  const dot = name.indexOf('.');
  if (dot === -1) return values[name];
  return valueAt(values[name.slice(0, dot)], name.slice(dot + 1));
}

function typed(value: Json | undefined, asNumber: boolean, placeholder: string): Json | undefined {
  if (!asNumber || value === undefined || typeof value === 'number') return value;
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : Number.NaN;
  if (Number.isFinite(number) && (!Number.isInteger(number) || Number.isSafeInteger(number))) return number;
  throw new StoreFailure(
    'rejected',
    `${placeholder} in a configured body stands for what is no exact number`,
  );
}

/** As HTML forms are sent; what is no single value stands there as JSON. */
export function formOf(body: Json): string {
  const fields = isFields(body) ? Object.entries(body) : [];
  const texts = fields.map(([name, value]): [string, string] => [
    name,
    typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value ?? ''),
  ]);
  return new URLSearchParams(texts).toString();
}
