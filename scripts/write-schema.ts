/** Writes what is made from the configuration's schema: config/schema.json and docs/configuration.md. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jsonSchema, reference } from '../src/config/describe.ts';

const root = new URL('../', import.meta.url);
mkdirSync(new URL('docs/', root), { recursive: true });
for (const [path, text] of [
  ['config/schema.json', `${JSON.stringify(jsonSchema(), null, 2)}\n`],
  ['docs/configuration.md', reference()],
] as const) {
  const target = fileURLToPath(new URL(path, root));
  writeFileSync(target, text);
  process.stdout.write(`${target}\n`);
}
