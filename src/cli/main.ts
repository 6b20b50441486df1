/** Entry of `scripts/onewriter`: ties the command line to this process, its signals and its streams. */
import { isatty } from 'node:tty';
import { runCommandLine } from './run.ts';

const lingerMs = 3_000;
const attended = isatty(0);
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The first asks for an orderly end; whoever asks twice does not want to wait.
    if (interrupted.signal.aborted) process.exit(signal === 'SIGINT' ? 130 : 143);
    interrupted.abort();
  });
}

// Nobody knows what is still right then, so it ends at once: as a member that died, which handoffs wait for.
process.on('uncaughtException', (error) => {
  report(error);
  process.exit(1);
});

try {
  process.exitCode = await runCommandLine({
    argv: process.argv.slice(2),
    env: process.env,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    interrupted: interrupted.signal,
    onHangup: (listener) => {
      const heed = (): void => {
        // A terminal that was closed sends it, too: then there is nobody left to run for.
        if (attended && !isatty(0)) interrupted.abort();
        else listener();
      };
      process.on('SIGHUP', heed);
      return () => process.off('SIGHUP', heed);
    },
    composition: () => import('../compose.ts'),
  });
} catch (error) {
  report(error);
  process.exitCode = 1;
}
// A connection that cannot be closed must not keep alive what was told to end.
if (interrupted.signal.aborted) setTimeout(() => process.exit(), lingerMs).unref();

/** Whatever arrives here is a bug of ours, and its stack is what we need to see. */
function report(error: unknown): void {
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`onewriter: an unexpected error; please report it with what follows.\n${stack}\n`);
}
