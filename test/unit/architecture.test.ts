import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from '@jest/globals';

const stores = ['core', 'config', 'guard', 'batches.ts', 'log.ts', 'pause.ts'];
const parts = [...stores, 'ledger', 'stores'];
const operators = [...parts, 'proxy', 'handoff', 'sync'];

/** What each folder or file of src may import, besides itself. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  core: [],
  'batches.ts': [],
  'log.ts': ['core'],
  'pause.ts': [],
  config: ['core'],
  guard: ['core'],
  ledger: ['core', 'config', 'batches.ts', 'log.ts', 'pause.ts'],
  stores,
  proxy: parts,
  handoff: parts,
  sync: parts,
  admin: operators,
  processes: parts,
  // Parts are put together in compose; only what starts a process uses it.
  'base.ts': [...operators, 'admin'],
  'compose.ts': [...operators, 'admin', 'processes', 'base.ts', 'proxy-role.ts', 'observe-role.ts'],
  'proxy-role.ts': operators,
  'observe-role.ts': operators,
  'proxy-process.ts': ['compose.ts', 'log.ts', 'processes'],
  cli: [...operators, 'admin', 'compose.ts'],
};

const sources = filesBelow('src').filter((file) => file.endsWith('.ts'));

describe('imports go one way', () => {
  test('every folder of src has its place in the order', () => {
    expect(readdirSync('src').filter((name) => allowed[name] === undefined)).toEqual([]);
  });

  test.each(Object.keys(allowed))('%s imports only what stands before it', (folder) => {
    const permitted = [folder, ...(allowed[folder] ?? [])];
    const forbidden = sources
      .filter((file) => folderOf(file) === folder)
      .flatMap((file) => importsOf(file).map((target) => ({ file, target })))
      .filter(({ target }) => !permitted.includes(folderOf(target)));
    expect(forbidden).toEqual([]);
  });

  test('the core imports no package and no part of Node', () => {
    const foreign = sources
      .filter((file) => folderOf(file) === 'core')
      .flatMap((file) => specifiersOf(file).map((specifier) => ({ file, specifier })))
      .filter(({ specifier }) => !specifier.startsWith('.'));
    expect(foreign).toEqual([]);
  });

  test('the guard, which apps import, takes nothing of the program but its rule', () => {
    const taken = sources
      .filter((file) => folderOf(file) === 'guard')
      .flatMap(importsOf)
      .filter((target) => folderOf(target) !== 'guard');
    expect(new Set(taken)).toEqual(new Set(taken.length === 0 ? [] : [join('src', 'core', 'guard.ts')]));
  });
});

describe('the face of the guard', () => {
  test('the program itself takes only the signature from it, and what asks it in SQL', () => {
    const taken = sources
      .filter((file) => folderOf(file) !== 'guard')
      .flatMap(importsOf)
      .filter((target) => folderOf(target) === 'guard');
    expect([...new Set(taken)].filter((target) => target !== 'src/guard/signature.ts')).toEqual([
      // Its calls in SQL, which stores/postgres makes itself.
      'src/guard/guard.ts',
    ]);
  });
});

describe('the way to a store', () => {
  test('is known to the rest of the proxy by its face alone', () => {
    const behind = sources
      .filter((file) => !file.startsWith(join('src', 'proxy', 'upstream')))
      .flatMap((file) => importsOf(file).map((target) => ({ file, target })))
      .filter(({ target }) => target.startsWith(join('src', 'proxy', 'upstream/')));
    expect(behind).toEqual([]);
  });
});

describe('sizes', () => {
  test('no file in src has more than 400 lines', () => {
    const long = sources.filter((file) => readFileSync(file, 'utf8').split('\n').length > 401);
    expect(long).toEqual([]);
  });

  test('half of the files in src have fewer than 150 lines', () => {
    const lengths = sources
      .map((file) => readFileSync(file, 'utf8').split('\n').length)
      .toSorted((a, b) => a - b);
    expect(lengths[Math.floor(lengths.length / 2)]).toBeLessThan(150);
  });

  test('every file in src opens with what it is for', () => {
    expect(sources.filter((file) => !readFileSync(file, 'utf8').startsWith('/**'))).toEqual([]);
  });
});

describe('documents name what exists', () => {
  const documents = ['README.md', ...filesBelow('docs')].filter(
    (file) => file.endsWith('.md') && existsSync(file),
  );
  test.each(documents)('%s', (document) => {
    expect(pathsIn(document).filter((path) => !existsSync(path))).toEqual([]);
  });
});

function folderOf(path: string): string {
  return path.split('/')[1] ?? '';
}

function filesBelow(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((file) => statSync(file).isFile());
}

/** Specifiers of imports and re-exports, static and dynamic. */
function specifiersOf(file: string): string[] {
  const code = readFileSync(file, 'utf8').replaceAll(/^\s*(\/\*\*?|\*|\/\/).*$/gm, '');
  const found = code.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)(['"])([^'"\n]+)\1/g);
  return [...found].map((match) => match[2] ?? '');
}

/** Files of this repository that a file imports. */
function importsOf(file: string): string[] {
  return specifiersOf(file)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => normalize(join(dirname(file), specifier)));
}

/** Repository paths in backticks, and relative links; not patterns such as `docs/*.md` or `FILE`. */
function pathsIn(document: string): string[] {
  const text = readFileSync(document, 'utf8').replaceAll(/^```[\s\S]*?^```/gm, '');
  const quoted = [...text.matchAll(/`([^`\n]+)`/g)]
    .map((match) => (match[1] ?? '').split(/[\s:#]/, 1)[0] ?? '')
    .filter((path) => /^(?:\.ci|bench|config|docs|examples|scripts|src|test)\/[\w./-]*[\w/]$/.test(path));
  const linked = [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map((match) => (match[1] ?? '').split('#', 1)[0] ?? '')
    .filter((target) => target !== '' && !/^[a-z]+:/i.test(target))
    .map((target) => normalize(join(dirname(document), target)));
  return [...quoted, ...linked];
}
