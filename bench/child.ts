/** Processes that a benchmark starts: each is known by its pid, and ended by it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface Child {
  readonly pid: number;
  /** What the process printed when it was ready: the first group of the pattern. */
  readonly said: string;
  /** The last that it wrote to its standard error. */
  complaints(): string;
  /** SIGKILL, and gone when this resolves. */
  stop(): Promise<void>;
}

const readyWithinMs = 180_000;
const complaintsKept = 2_000;

/** Starts a program and waits until its standard output matches. Rejects where it ends before, or says nothing. */
export async function startChild(command: readonly string[], ready: RegExp): Promise<Child> {
  const [program = '', ...given] = command;
  const child = spawn(program, given, { stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  child.once('exit', () => running.delete(child));
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => {
    if (process.env['BENCH_LOG'] !== undefined) process.stderr.write(chunk);
    complaints = (complaints + chunk.toString()).slice(-complaintsKept);
  });
  try {
    const said = await outputOf(child, ready);
    return { pid: child.pid ?? 0, said, complaints: () => complaints, stop: () => end(child) };
  } catch (error) {
    await end(child);
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${command.join(' ')}: ${why}. ${complaints}`, { cause: error });
  }
}

/** Nobody is left behind where a benchmark fails or is interrupted. */
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

/** Runs one of the TypeScript files of this folder. */
export function startScript(script: string, given: readonly string[], ready: RegExp): Promise<Child> {
  const file = fileURLToPath(new URL(script, import.meta.url));
  return startChild([process.execPath, '--disable-warning=ExperimentalWarning', file, ...given], ready);
}

export async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((done) => child.once('exit', () => done()));
  child.kill('SIGKILL');
  await gone;
}

function outputOf(child: ChildProcess, ready: RegExp): Promise<string> {
  return new Promise((done, failed) => {
    let text = '';
    const late = setTimeout(() => failed(new Error('it was not ready in time')), readyWithinMs);
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const found = ready.exec(text);
      if (found === null) return;
      clearTimeout(late);
      done(found[1] ?? '');
    });
    child.once('error', failed);
    child.once('exit', (code, signal) => {
      clearTimeout(late);
      failed(new Error(`it ended with ${signal ?? code}: ${text}`));
    });
  });
}
