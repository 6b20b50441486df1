/**
 * Looking things up in the schema itself: what may stand at a place of the configuration. Placeholders,
 * messages and the reference are all made with it, so that none of them repeats the schema.
 */
import type { z } from 'zod';

export type Schema = z.core.$ZodType;
export type Path = readonly PropertyKey[];

type Definition = z.core.$ZodTypes['_zod']['def'];

export function definitionOf(schema: Schema): Definition {
  return (schema as z.core.$ZodTypes)._zod.def;
}

/** The schema inside defaults and optionality. */
export function bare(schema: Schema): Schema {
  const definition = definitionOf(schema);
  return 'innerType' in definition ? bare(definition.innerType) : schema;
}

/** The schema's alternatives, with unions inside unions laid out flat; itself where there is no choice. */
export function alternativesOf(schema: Schema): Schema[] {
  const inner = bare(schema);
  const definition = definitionOf(inner);
  return definition.type === 'union' ? definition.options.flatMap(alternativesOf) : [inner];
}

/** What may stand under `key` of a mapping or list, over all alternatives. */
export function membersOf(schema: Schema, key: PropertyKey): Schema[] {
  return alternativesOf(schema).flatMap((alternative) => {
    const definition = definitionOf(alternative);
    if (definition.type === 'record') return [definition.valueType];
    if (definition.type === 'array') return [definition.element];
    if (definition.type !== 'object' || typeof key !== 'string') return [];
    const member = Object.hasOwn(definition.shape, key) ? definition.shape[key] : undefined;
    return member === undefined ? [] : [member];
  });
}

export function schemasAt(schema: Schema, path: Path): Schema[] {
  return path.reduce<Schema[]>((found, key) => found.flatMap((one) => membersOf(one, key)), [schema]);
}

/** Names of the keys that a mapping may have; none where names are free. */
export function keysOf(schema: Schema): string[] {
  return alternativesOf(schema).flatMap((alternative) => {
    const definition = definitionOf(alternative);
    return definition.type === 'object' ? Object.keys(definition.shape) : [];
  });
}

/** May be left out: optional, or with a default. */
export function isOptional(schema: Schema): boolean {
  return schema._zod.optin !== undefined;
}

/** The description nearest to the outside, as given by `.describe()`. */
export function descriptionOf(schema: Schema): string | undefined {
  const own = (schema as z.ZodType).description;
  if (own !== undefined) return own;
  const definition = definitionOf(schema);
  return 'innerType' in definition ? descriptionOf(definition.innerType) : undefined;
}

const words: Readonly<Partial<Record<Definition['type'], string>>> = {
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  record: 'a mapping',
  null: 'null',
};

/** What a value may be, in words for people. */
export function inWords(schema: Schema): string {
  const inner = bare(schema);
  const definition = definitionOf(inner);
  if (definition.type === 'number') return 'format' in definition ? 'a whole number' : 'a number';
  if (definition.type === 'literal') {
    return definition.values.map((value) => JSON.stringify(value)).join(' or ');
  }
  if (definition.type === 'enum') {
    return Object.values(definition.entries)
      .map((value) => JSON.stringify(value))
      .join(' or ');
  }
  if (definition.type === 'object') return outlineOf(definition.shape);
  if (definition.type === 'union') return alternativesOf(inner).map(inWords).join(', ');
  return words[definition.type] ?? 'any value';
}

function outlineOf(shape: Readonly<Record<string, Schema>>): string {
  const names = Object.entries(shape).map(([name, member]) => (isOptional(member) ? `${name}?` : name));
  return `{ ${names.join(', ')} }`;
}

/** Dotted, as an operator would say it: `cohorts.pilot.partitions[2]`. */
export function pathInWords(path: Path): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else if (/^[\w-]+$/.test(String(key))) text += text === '' ? String(key) : `.${String(key)}`;
    else text += `[${JSON.stringify(String(key))}]`;
  }
  return text;
}
