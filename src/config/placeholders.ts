/**
 * Values from the environment: `${NAME}` and `${NAME:-default}` in the texts of a parsed file. Because they
 * are replaced after parsing, a value can never change the structure of the file.
 */
import { alternativesOf, definitionOf, membersOf, pathInWords, type Path, type Schema } from './grammar.ts';
import type { ConfigProblem } from './problems.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface FilledIn {
  readonly value: unknown;
  readonly problems: readonly ConfigProblem[];
}

/** `$${` first: it stands for a `${` that is meant as such. */
const placeholder = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{/g;
const wholePlaceholder = /^\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^}]*)?\}$/;

/**
 * Replaces every placeholder in the text values of `raw`; names of keys are left alone. As in a shell, the
 * default also stands in for an empty variable. Where a text is one placeholder and nothing else, and
 * `schema` wants a number or a boolean there but no text, the value is converted.
 */
export function fillIn(raw: unknown, schema: Schema, environment: Environment): FilledIn {
  const problems: ConfigProblem[] = [];

  function walk(value: unknown, schemas: readonly Schema[], path: Path): unknown {
    const below = (key: PropertyKey): Schema[] => schemas.flatMap((one) => membersOf(one, key));
    if (typeof value === 'string') return convert(value, replace(value, path), schemas);
    if (Array.isArray(value)) return value.map((item, at) => walk(item, below(at), [...path, at]));
    if (typeof value !== 'object' || value === null) return value;
    const entries = Object.entries(value);
    return Object.fromEntries(entries.map(([key, item]) => [key, walk(item, below(key), [...path, key])]));
  }

  function replace(text: string, path: Path): string {
    return text.replaceAll(placeholder, (found, name: string | undefined, otherwise: string | undefined) => {
      if (found === '$${') return '${';
      if (name === undefined) {
        const message =
          'contains "${" without a placeholder; write ${NAME}, ${NAME:-default}, or $${ for "${"';
        problems.push({ path: pathInWords(path), message });
        return found;
      }
      const held = environment[name];
      if (otherwise !== undefined) return held === undefined || held === '' ? otherwise : held;
      if (held !== undefined) return held;
      const message = `needs the environment variable ${name}, which is not set; set it, or give a default with \${${name}:-…}`;
      problems.push({ path: pathInWords(path), message });
      return found;
    });
  }

  return { value: walk(raw, [schema], []), problems };
}

function convert(written: string, text: string, schemas: readonly Schema[]): unknown {
  if (!wholePlaceholder.test(written)) return text;
  const definitions = schemas.flatMap(alternativesOf).map(definitionOf);
  const takesText = definitions.some(
    (one) =>
      ['string', 'enum', 'unknown', 'any'].includes(one.type) ||
      (one.type === 'literal' && one.values.some((value) => value === text)),
  );
  if (takesText) return text;
  const numeric = definitions.some((one) => one.type === 'number');
  if (numeric && /^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  const logical = definitions.some(
    (one) =>
      one.type === 'boolean' ||
      (one.type === 'literal' && one.values.some((value) => typeof value === 'boolean')),
  );
  if (logical && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}
