/** Files that commands write. */
import { open, rename } from 'node:fs/promises';
import { type CliRefusal, refusal } from './exit.ts';

/** All of it or nothing, readable for its owner alone. */
export async function writeWhole(file: string, text: string): Promise<CliRefusal | undefined> {
  const beside = `${file}.part`;
  try {
    const handle = await open(beside, 'w', 0o600);
    await handle.writeFile(text);
    await handle.sync();
    await handle.close();
    await rename(beside, file);
    return undefined;
  } catch (error) {
    return refusal('cannot-write', `${file} cannot be written (${codeOf(error)}).`);
  }
}

export function codeOf(error: unknown): string {
  return String((error as NodeJS.ErrnoException).code ?? error);
}
