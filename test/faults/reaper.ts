/**
 * Ends what a run left behind when the run itself was killed: it hears of every child by its pid, and outlives
 * its parent by a moment. Started by children.ts.
 */
const alive = new Set<number>();

process.on('message', (message) => {
  const { pid, runs } = message as { readonly pid: number; readonly runs: boolean };
  if (runs) alive.add(pid);
  else alive.delete(pid);
});
process.on('disconnect', () => {
  for (const pid of alive) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended meanwhile.
    }
  }
  process.exit(0);
});
