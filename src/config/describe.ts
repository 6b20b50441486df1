/** The configuration, described for editors (JSON Schema) and for people (docs/configuration.md). */
import { z } from 'zod';
import { alternativesOf, bare, definitionOf, descriptionOf, isOptional, type Schema } from './grammar.ts';
import { unavailableKeys } from './availability.ts';
import { configSchema } from './schema.ts';

type JsonSchema = z.core.JSONSchema.JSONSchema;

const placeholderPattern = '\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}';

/**
 * JSON Schema, draft 2020-12, of the file as it is written, before placeholders are filled in: every single
 * value may be a text with a placeholder instead.
 */
export function jsonSchema(): JsonSchema {
  return z.toJSONSchema(configSchema, {
    io: 'input',
    override: ({ jsonSchema: node }) => {
      if (!isConstrainedScalar(node)) return;
      const { description, default: initial, ...constraint } = { ...node };
      for (const key of Object.keys(node)) delete node[key];
      Object.assign(node, {
        ...(description === undefined ? {} : { description }),
        ...(initial === undefined ? {} : { default: initial }),
        anyOf: [constraint, { type: 'string', pattern: placeholderPattern }],
      });
    },
  }) as JsonSchema;
}

function isConstrainedScalar(node: JsonSchema): boolean {
  if (node.type === 'number' || node.type === 'integer' || node.type === 'boolean') {
    return node.const === undefined;
  }
  if (node.type !== 'string' || node.const !== undefined) return false;
  return node.enum !== undefined || node.format !== undefined || node.pattern !== undefined;
}

interface Entry {
  readonly path: string;
  readonly schema: Schema;
  /** One of several forms has this key: "required" would only be true within its form. */
  readonly inOneForm: boolean;
}

/** Markdown: every key with its type, default and description. */
export function reference(): string {
  const lines = [introduction];
  for (const [name, section] of Object.entries(configSchema.shape)) {
    lines.push('', `## ${name}`, '', lineOf([{ path: name, schema: section, inOneForm: false }]));
    const entries = entriesBelow(name, section).filter(({ path }) => !path.startsWith(repeatedBelow));
    for (const same of Map.groupBy(entries, ({ path }) => path).values()) lines.push(lineOf(same));
  }
  return `${lines.join('\n')}\n`;
}

/** Both stores have the same kinds of connector; once is enough. */
const repeatedBelow = 'stores.app.connector.';

const introduction = `# Configuration

<!-- Made from src/config/schema.ts by \`npm run schema\`; change it there. -->

One file, YAML or JSON; \`--config FILE\` names it, and \`config/onewriter.yaml\` is a sample. It is checked as a
whole before anything starts: unknown keys are errors, and everything that is wrong is reported at once, each
with its place.

In every text, \`\${NAME}\` is replaced by the environment variable of that name, and \`\${NAME:-default}\` by the
default where the variable is missing or empty. A missing variable without a default is an error. \`$\${\`
stands for \`\${\`. A number or a switch can be given this way, too: \`port: "\${PORT:-8080}"\`.

Keys that are understood but not available yet are marked **not available yet** below, with the values that are
meant where others can be used; they are refused with these words.

In the list below, \`[]\` stands for each entry of a list and \`NAME\` for a name of your own. What
stands below \`stores.legacy.connector\` is the same below \`stores.app.connector\`.`;

function entriesBelow(path: string, schema: Schema): Entry[] {
  const alternatives = alternativesOf(schema);
  const forms = alternatives.filter((one) => definitionOf(one).type === 'object').length;
  return alternatives.flatMap((alternative): Entry[] => {
    const definition = definitionOf(alternative);
    if (definition.type === 'array') return entriesBelow(`${path}[]`, definition.element);
    if (definition.type === 'record') return entriesBelow(`${path}.NAME`, definition.valueType);
    if (definition.type !== 'object') return [];
    return Object.entries(definition.shape).flatMap(([key, member]) => {
      const entry = { path: `${path}.${key}`, schema: member, inOneForm: forms > 1 };
      return [entry, ...entriesBelow(entry.path, member)];
    });
  });
}

/** `same` has one entry for each form of the mapping that knows the key. */
function lineOf(same: readonly Entry[]): string {
  const [first] = same;
  if (first === undefined) return '';
  const types = [...new Set(same.map(({ schema }) => typeOf(schema)))].join(', ');
  const presence = presenceOf(first);
  const line = `- \`${first.path}\` (${types}${presence === '' ? '' : `, ${presence}`}): ${descriptionOf(first.schema) ?? ''}`;
  return `${line}${markOf(first.path)}`;
}

function markOf(path: string): string {
  const values = unavailableKeys[path];
  if (values === undefined) return '';
  return values.length === 0
    ? ' **Not available yet.**'
    : ` **Not available yet:** ${values.map(asCode).join(', ')}.`;
}

function typeOf(schema: Schema): string {
  const inner = bare(schema);
  const definition = definitionOf(inner);
  if (definition.type === 'string') return 'text';
  if (definition.type === 'number') return numberType(inner);
  if (definition.type === 'boolean') return 'true or false';
  if (definition.type === 'null') return 'null';
  if (definition.type === 'literal') return definition.values.map(asCode).join(', ');
  if (definition.type === 'enum') return Object.values(definition.entries).map(asCode).join(', ');
  if (definition.type === 'array') return `list of ${nameOfItems(definition.element)}`;
  if (definition.type === 'record') return `mapping of names to ${nameOfItems(definition.valueType)}`;
  if (definition.type === 'object') return 'mapping';
  if (definition.type === 'union') {
    return [...new Set(alternativesOf(inner).map(typeOf))].join(' or ');
  }
  return 'any value';
}

function nameOfItems(schema: Schema): string {
  const type = typeOf(schema);
  return type === 'mapping' ? 'mappings' : type;
}

function numberType(schema: Schema): string {
  const { minValue, maxValue, isInt } = schema as z.ZodNumber;
  const kind = isInt ? 'whole number' : 'number';
  const from = minValue !== null && Math.abs(minValue) < Number.MAX_SAFE_INTEGER ? ` from ${minValue}` : '';
  const to = maxValue !== null && Math.abs(maxValue) < Number.MAX_SAFE_INTEGER ? ` to ${maxValue}` : '';
  return `${kind}${from}${to}`;
}

function presenceOf({ schema, inOneForm }: Entry): string {
  const definition = definitionOf(schema);
  if (definition.type === 'default') return `default ${asCode(definition.defaultValue)}`;
  if (isOptional(schema)) return 'optional';
  return inOneForm ? '' : 'required';
}

function asCode(value: unknown): string {
  return `\`${typeof value === 'string' && value !== '' ? value : JSON.stringify(value)}\``;
}
