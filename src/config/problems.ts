/** What zod found wrong, in words for the operator: one entry per fault, each at its exact place. */
import type { z } from 'zod';
import {
  definitionOf,
  inWords,
  isOptional,
  keysOf,
  pathInWords,
  schemasAt,
  type Path,
  type Schema,
} from './grammar.ts';

export interface ConfigProblem {
  /** Dotted, such as `stores.legacy.url`; empty for the file as a whole. */
  readonly path: string;
  /** Never contains a value of the file: it could be a secret. */
  readonly message: string;
}

/** A check reports through these two. */
export interface Reporter {
  problem(path: string, message: string): void;
  warning(message: string): void;
}

type Issue = z.core.$ZodIssue;

/** Problems of `value`, which did not parse as `schema`; `base` is where the value stands in the file. */
export function problemsOf(
  issues: readonly Issue[],
  schema: Schema,
  value: unknown,
  base: Path = [],
): ConfigProblem[] {
  return issues.flatMap((issue) => {
    const path = [...base, ...issue.path];
    const found = valueAt(value, issue.path);
    if (issue.code === 'unrecognized_keys') {
      const known = schemasAt(schema, issue.path).flatMap(keysOf);
      return issue.keys.map((key) => ({
        path: pathInWords([...path, key]),
        message: unknownKey(key, known),
      }));
    }
    if (issue.code === 'invalid_union') return problemsOfUnion(issue, schema, value, base);
    return [{ path: pathInWords(path), message: sentence(issue, found) }];
  });
}

/**
 * zod says only that no alternative fits. The one that knows most of the keys that are there is what the
 * operator meant: its problems are reported. Where none knows a key, the alternatives are listed.
 */
function problemsOfUnion(
  issue: z.core.$ZodIssueInvalidUnion,
  schema: Schema,
  value: unknown,
  base: Path,
): ConfigProblem[] {
  const path = [...base, ...issue.path];
  const found = valueAt(value, issue.path);
  const unions = schemasAt(schema, issue.path);
  if (typeof found === 'object' && found !== null && !Array.isArray(found) && issue.errors.length > 0) {
    const options = unions.flatMap(optionsOf);
    const ranked = options
      .map((option, at) => ({
        option,
        errors: issue.errors[at] ?? [],
        fit: fitOf(option, Object.keys(found)),
      }))
      .filter(({ errors, fit }) => fit.known > 0 && errors.length > 0)
      .toSorted(
        (a, b) =>
          b.fit.known - a.fit.known || a.fit.missing - b.fit.missing || a.errors.length - b.errors.length,
      );
    const meant = ranked[0];
    if (meant !== undefined) return problemsOf(meant.errors, meant.option, found, path);
  }
  const wanted = unions.map(inWords).join(', ');
  const message =
    found === undefined ? `is missing; it must be one of: ${wanted}` : `must be one of: ${wanted}`;
  return [{ path: pathInWords(path), message }];
}

function optionsOf(schema: Schema): readonly Schema[] {
  const definition = definitionOf(schema);
  if (definition.type === 'union') return definition.options;
  return 'innerType' in definition ? optionsOf(definition.innerType) : [];
}

function fitOf(option: Schema, keys: readonly string[]): { known: number; missing: number } {
  const definition = definitionOf(option);
  if (definition.type !== 'object') return { known: 0, missing: 0 };
  const required = Object.entries(definition.shape).filter(([, member]) => !isOptional(member));
  return {
    known: keys.filter((key) => Object.hasOwn(definition.shape, key)).length,
    missing: required.filter(([name]) => !keys.includes(name)).length,
  };
}

function sentence(issue: Issue, found: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      if (found === undefined) return 'is missing';
      if (found === null) return `is empty; it must be ${typeInWords(issue.expected)}`;
      return `must be ${typeInWords(issue.expected)}, not ${kindInWords(found)}`;
    case 'invalid_value': {
      const values = issue.values.map((value) => JSON.stringify(value)).join(', ');
      const wanted = issue.values.length === 1 ? `must be ${values}` : `must be one of ${values}`;
      return found === undefined ? `is missing; it ${wanted}` : wanted;
    }
    case 'too_small':
      if (issue.origin === 'array') return `must have at least ${issue.minimum} entry`;
      if (issue.origin === 'string') {
        return issue.minimum === 1 ? 'must not be empty' : `must have at least ${issue.minimum} characters`;
      }
      return `must be ${issue.minimum} or more`;
    case 'too_big':
      return `must be ${issue.maximum} or less`;
    case 'invalid_key':
      return 'is not a name that is allowed here; use letters, digits, "_" and "-"';
    case 'invalid_format':
    case 'not_multiple_of':
    case 'unrecognized_keys':
    case 'invalid_union':
    case 'invalid_element':
    case 'custom':
      return issue.message;
  }
}

function typeInWords(expected: string): string {
  const words: Readonly<Record<string, string>> = {
    string: 'text',
    number: 'a number',
    int: 'a whole number',
    boolean: 'true or false',
    array: 'a list',
    object: 'a mapping',
    record: 'a mapping',
  };
  return words[expected] ?? expected;
}

function kindInWords(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'string') return 'text';
  if (typeof value === 'number') {
    return Number.isInteger(value) ? 'a number (in quotes it would be text)' : 'a fraction';
  }
  return typeof value === 'boolean' ? 'true or false (in quotes it would be text)' : 'a mapping';
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (found, key) =>
      typeof found === 'object' && found !== null && Object.hasOwn(found, key)
        ? (found as Record<PropertyKey, unknown>)[key]
        : undefined,
    value,
  );
}

function unknownKey(key: string, known: readonly string[]): string {
  const near = nearest(key, known);
  if (near !== undefined) return `is not a known key; did you mean "${near}"?`;
  return known.length === 0
    ? 'is not a known key'
    : `is not a known key; known here: ${[...new Set(known)].join(', ')}`;
}

/** The known name that takes the fewest edits, if it takes few enough to be a slip. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((candidate) => ({ candidate, edits: editsBetween(name.toLowerCase(), candidate.toLowerCase()) }))
    .toSorted((a, b) => a.edits - b.edits);
  const best = ranked[0];
  return best !== undefined && best.edits <= Math.max(1, Math.floor(name.length / 3))
    ? best.candidate
    : undefined;
}

/** Damerau's distance in its restricted form: insertions, deletions, changes, and swaps of neighbours. */
function editsBetween(left: string, right: string): number {
  let older: number[] = [];
  let previous = Array.from({ length: right.length + 1 }, (_, at) => at);
  for (let i = 1; i <= left.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= right.length; j += 1) {
      const change = (previous[j - 1] ?? 0) + (left[i - 1] === right[j - 1] ? 0 : 1);
      const swap =
        i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]
          ? (older[j - 2] ?? 0) + 1
          : Infinity;
      row.push(Math.min(change, swap, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    older = previous;
    previous = row;
  }
  return previous[right.length] ?? 0;
}
