/** From a file and the environment to the frozen configuration, or to everything that is wrong with it. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { accessHash } from './access-hash.ts';
import { notAvailableYet } from './availability.ts';
import { findingsOf } from './checks.ts';
import { schemaFor } from './observing.ts';
import { fillIn, type Environment } from './placeholders.ts';
import { problemsOf, type ConfigProblem } from './problems.ts';
import { configSchema, type Config, type ParsedConfig } from './schema.ts';
import { readableSections } from './sections.ts';

export type { ConfigProblem } from './problems.ts';

export interface LoadedConfig {
  readonly ok: true;
  readonly config: Config;
  /** Fingerprint of identity, partition and access; see access-hash.ts. */
  readonly hash: string;
  /** Absolute. */
  readonly path: string;
  /** Sentences about what works, but probably not as intended. */
  readonly warnings: readonly string[];
}

export interface RefusedConfig {
  readonly ok: false;
  /** At least one; section by section. */
  readonly problems: readonly ConfigProblem[];
}

/**
 * Reads YAML or JSON. Everything that is wrong is returned at once: nothing is thrown, and no message
 * repeats a value of the file. `path` is relative to the current directory; so is `dataDir` in the file,
 * because the file may live where nothing may be written.
 */
export function loadConfig(request: {
  readonly path: string;
  readonly env: Environment;
}): LoadedConfig | RefusedConfig {
  const path = resolve(request.path);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return refused([{ path: '', message: unreadable(path, error) }]);
  }
  return parseConfig(text, request.env, path);
}

/** The same for a text that was read already; `path` is only reported back. */
export function parseConfig(text: string, env: Environment, path: string): LoadedConfig | RefusedConfig {
  const parsed = parseText(text);
  if ('problems' in parsed) return refused(parsed.problems);
  const filled = fillIn(parsed.value, configSchema, env);
  const schema = schemaFor(filled.value);
  const checked = schema.safeParse(filled.value);
  const sections = checked.success ? checked.data : readableSections(filled.value);
  const findings = findingsOf(sections);
  // A placeholder without a value has been reported; what the schema thinks of its text says nothing more.
  const reported = new Set(filled.problems.map((problem) => problem.path));
  const others = [
    ...(checked.success ? [] : problemsOf(checked.error.issues, schema, filled.value)),
    ...findings.problems,
    ...notAvailableYet(sections),
  ].filter((problem) => !reported.has(problem.path));
  const problems = inOrder([...filled.problems, ...others]);
  if (!checked.success || problems.length > 0) return refused(problems);
  const config = frozen(checked.data);
  return { ok: true, config, hash: accessHash(config), path, warnings: findings.warnings };
}

function refused(problems: readonly ConfigProblem[]): RefusedConfig {
  return { ok: false, problems };
}

function unreadable(path: string, error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return `there is no file ${path}; name the configuration with --config FILE`;
  if (code === 'EISDIR') return `${path} is a directory, not a file`;
  if (code === 'EACCES') return `${path} may not be read by this user`;
  return `${path} cannot be read: ${message}`;
}

type ParsedText = { readonly value: unknown } | { readonly problems: readonly ConfigProblem[] };

function parseText(text: string): ParsedText {
  const lines = new LineCounter();
  // Pretty errors would quote the line, and with it perhaps a secret.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    const problems = faults.map((fault) => {
      const { line, col } = lines.linePos(fault.pos[0]);
      const message = fault.message.split(/[;:] /, 1)[0] ?? fault.code;
      return { path: '', message: `line ${line}, column ${col}: ${message}` };
    });
    return { problems };
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    return { problems: [{ path: '', message: (error as Error).message }] };
  }
  if (value === null || value === undefined)
    return { problems: [{ path: '', message: 'the file is empty' }] };
  if (typeof value !== 'object' || Array.isArray(value)) {
    return { problems: [{ path: '', message: 'the file must be a mapping of sections, like "stores: …"' }] };
  }
  return { value };
}

/** Section by section as in the schema, each sentence once. */
function inOrder(problems: readonly ConfigProblem[]): ConfigProblem[] {
  const sections = Object.keys(configSchema.shape);
  const sectionOf = ({ path }: ConfigProblem): number => {
    const at = sections.indexOf(path.split(/[.[]/, 1)[0] ?? '');
    return at === -1 ? sections.length : at;
  };
  const once = new Map(problems.map((problem) => [`${problem.path}\n${problem.message}`, problem]));
  return [...once.values()].toSorted((a, b) => sectionOf(a) - sectionOf(b));
}

function frozen(config: ParsedConfig): Config {
  freezeDeeply(config);
  return config;
}

function freezeDeeply(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const member of Object.values(value)) freezeDeeply(member);
}
