/**
 * Runs jest and counts. Called by scripts/test with jest's arguments.
 *
 * The tests talk to real processes over real sockets, two files at a time; on a machine with few cores one can run into a
 * time limit because of its neighbour. So up to `fewFiles` files that fail are run again, alone. What fails there has
 * failed. What passes only there is named, because it can also be a fault that shows itself now and then.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

const fewFiles = 3;
const directory = mkdtempSync(join(tmpdir(), 'onewriter-tests-'));

/** Passed and failed tests, and the failed files; undefined where jest did not come to its end. */
function runJest(args, name) {
  const output = join(directory, name);
  const { status } = spawnSync(
    process.execPath,
    [
      ...['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'],
      ...['node_modules/jest/bin/jest.js', '--json', `--outputFile=${output}`, ...args],
    ],
    // Only the report for people, which jest writes to its standard error.
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  try {
    const results = JSON.parse(readFileSync(output, 'utf8'));
    const files = results.testResults.filter((file) => file.status === 'failed').map((file) => file.name);
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    const passed = results.numPassedTests;
    return { passed, failed: status === 0 ? failed : Math.max(1, failed), files, results };
  } catch {
    return undefined;
  }
}

const passedIn = (results, file) =>
  results.testResults
    .find((one) => one.name === file)
    ?.assertionResults.filter((one) => one.status === 'passed').length ?? 0;

function run(args) {
  const first = runJest(args, 'all');
  if (first === undefined) return { passed: 0, failed: 1 };
  const { files } = first;
  if (files.length === 0 || files.length > fewFiles) return first;
  process.stderr.write(`== again, alone: ${files.map((file) => relative('.', file)).join(' ')}\n`);
  const again = runJest(['--runInBand', '--runTestsByPath', ...files], 'again');
  if (again === undefined) return first;
  for (const file of files.filter((one) => !again.files.includes(one))) {
    process.stderr.write(`passed only alone: ${relative('.', file)}\n`);
  }
  const passedBefore = files.reduce((sum, file) => sum + passedIn(first.results, file), 0);
  return { passed: first.passed - passedBefore + again.passed, failed: again.failed };
}

try {
  const { passed, failed } = run(process.argv.slice(2));
  process.stdout.write(`${passed} ${failed}\n`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
