/** Examples in documents, as tests run them. */
import { readFileSync } from 'node:fs';

/** The first block of YAML below the heading. Throws where there is none. */
export function yamlBelow(file: string, heading: string): string {
  const text = readFileSync(file, 'utf8');
  const at = text.indexOf(`\n## ${heading}\n`);
  const [, block] = /\n```yaml\n([\s\S]*?)\n```\n/.exec(at === -1 ? '' : text.slice(at)) ?? [];
  if (block === undefined) throw new Error(`${file} has no example below "${heading}"`);
  return block;
}
