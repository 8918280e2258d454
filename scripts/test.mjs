// npm test [-- FILTER...]: gets what the tests need, builds, runs all tests (or those whose path contains a filter),
// and checks that they left no process and no file. Progress is shown meanwhile; the last line is `N passed, N failed`.
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { leftProcesses } from './test-leftovers.mjs';
import { provideNeeds } from './test-needs.mjs';

/**
 * For a file of tests. Far beyond the longest (the simulation: five minutes on two cores of their own): only a test that
 * hangs gets there. It is ended then, and where it was is told.
 */
const testTimeoutMs = 25 * 60_000;
/** For the test runner to end when all is told: a file of tests that takes no signal would hold it for ever. */
const runnerGraceMs = 30_000;
/** For processes that are just ending when the last test has ended, on a machine that is busy. */
const leftoverGraceMs = 30_000;

/** Files at once: one more than there are cores, since some of the time each waits for a clock or a disk. */
const concurrency = Math.min(4, availableParallelism() + 1);

const root = fileURLToPath(new URL('..', import.meta.url));
process.chdir(root);

function finish(passed, failed) {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

/** Built tests whose sources exist: what a branch that is gone left in dist/ is not run. */
function testFiles(filters) {
  const sources = ['server', 'hooks', 'backends', 'e2e', 'bench'].flatMap((folder) => {
    try {
      return readdirSync(folder, { recursive: true }).map((name) => path.join(folder, name));
    } catch (error) {
      if (error.code === 'ENOENT') return [];
      throw error;
    }
  });
  return sources
    .filter((name) => name.endsWith('.test.ts'))
    .filter((name) => filters.length === 0 || filters.some((filter) => name.includes(filter)))
    .map((name) => path.join('dist', name.replace(/\.ts$/, '.js')))
    .sort((a, b) => a.localeCompare(b));
}

async function runTests(files, temporary, countsFile) {
  const args = [
    '--enable-source-maps',
    '--test',
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${testTimeoutMs}`,
    `--test-reporter=${new URL('test-reporter.mjs', import.meta.url).href}`,
    '--test-reporter-destination=stdout',
    ...files,
  ];
  const env = { ...process.env, TMPDIR: temporary, TEST_COUNTS_FILE: countsFile };
  // A session of its own, so that its processes can be told from all others. Node's test context must not be inherited.
  delete env.NODE_TEST_CONTEXT;
  const child = spawn(process.execPath, args, { env, stdio: 'inherit', detached: true });
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => {
      process.kill(-child.pid, 'SIGKILL');
      process.exit(130);
    });
  }
  const exited = new Promise((resolve) => child.on('exit', resolve));
  let toldMs;
  const holding = setInterval(() => {
    if (existsSync(countsFile)) toldMs ??= performance.now();
    if (toldMs === undefined || performance.now() - toldMs < runnerGraceMs) return;
    clearInterval(holding);
    console.error('LEFT RUNNING by a test: a file of tests that was told to end');
    process.kill(-child.pid, 'SIGKILL');
  }, 1_000);
  const status = await exited;
  clearInterval(holding);
  return { status, session: child.pid };
}

/** Names and ends what is left. Returns how many things that were. */
async function checkLeftovers(session, temporary) {
  const deadline = performance.now() + leftoverGraceMs;
  let processes = leftProcesses(session, temporary);
  while (processes.length > 0 && performance.now() < deadline) {
    await sleep(50);
    processes = leftProcesses(session, temporary);
  }
  for (const { pid, command } of processes) {
    console.error(`LEFT RUNNING by a test: ${pid} ${command}`);
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // ended just now
    }
  }
  const files = readdirSync(temporary);
  for (const file of files) console.error(`LEFT BEHIND by a test: $TMPDIR/${file}`);
  return processes.length + files.length;
}

if (!provideNeeds()) finish(0, 1);
console.log('building');
const build = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.'], {
  stdio: 'inherit',
});
if (build.status !== 0) {
  console.error('the build failed');
  finish(0, 1);
}
const files = testFiles(process.argv.slice(2));
if (files.length === 0) {
  console.error('no test file matches');
  finish(0, 1);
}
console.log(`running ${files.length} test files`);
// Short: below it, the path of a unix socket has to fit into 107 bytes.
const work = mkdtempSync(path.join(realpathSync(tmpdir()), 'q-'));
try {
  const temporary = path.join(work, 't');
  mkdirSync(temporary);
  const countsFile = path.join(work, 'counts.json');
  const { status, session } = await runTests(files, temporary, countsFile);
  const left = await checkLeftovers(session, temporary);
  const counts = JSON.parse(readFileSync(countsFile, 'utf8'));
  if (counts.skipped > 0) console.error(`${counts.skipped} skipped, which counts as failed`);
  const failed = counts.failed + counts.skipped + left;
  // Whatever made the runner unhappy without a failed test (a file that could not be loaded, say) is a failure.
  const total = failed === 0 && status !== 0 ? 1 : failed;
  rmSync(work, { recursive: true, force: true });
  finish(counts.passed, total);
} catch (error) {
  rmSync(work, { recursive: true, force: true });
  console.error(error);
  finish(0, 1);
}
