import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { jsonSchema, reference } from '../../../src/config/describe.ts';
import { alternativesOf, definitionOf, descriptionOf, type Schema } from '../../../src/config/grammar.ts';
import { configSchema } from '../../../src/config/schema.ts';

test('config/schema.json is what the schema says today (else: npm run schema)', () => {
  expect(readFileSync('config/schema.json', 'utf8')).toBe(`${JSON.stringify(jsonSchema(), null, 2)}\n`);
});

test('docs/configuration.md is what the schema says today (else: npm run schema)', () => {
  expect(readFileSync('docs/configuration.md', 'utf8')).toBe(reference());
});

test('every key has a description', () => {
  expect(undescribed('', configSchema)).toEqual([]);
});

test('every top-level key of the sample is in the reference', () => {
  const sample = parse(readFileSync('config/onewriter.yaml', 'utf8')) as object;
  for (const name of Object.keys(sample)) expect(reference()).toContain(`\n## ${name}\n`);
});

test('the JSON Schema lets a placeholder stand for any single value', () => {
  expect(jsonSchema()).toHaveProperty('properties.proxy.properties.port', {
    default: 8080,
    description: expect.any(String),
    anyOf: [
      { type: 'integer', minimum: 0, maximum: 65_535 },
      { type: 'string', pattern: expect.any(String) },
    ],
  });
});

function undescribed(path: string, schema: Schema): string[] {
  return alternativesOf(schema).flatMap((alternative): string[] => {
    const definition = definitionOf(alternative);
    if (definition.type === 'array') return undescribed(`${path}[]`, definition.element);
    if (definition.type === 'record') return undescribed(`${path}.NAME`, definition.valueType);
    if (definition.type !== 'object') return [];
    return Object.entries(definition.shape).flatMap(([key, member]) => {
      const place = `${path}.${key}`;
      return [...(descriptionOf(member) === undefined ? [place] : []), ...undescribed(place, member)];
    });
  });
}
