// npm run faults [-- --rounds N] [--seed S] [FILTER...]: real faults of a real cluster for a long time: kills, stalls,
// partitions, slow lines, wiped and full disks, flipped bits, clocks that are apart. After each the clients' own records
// are checked. The last lines say what was done, and how to run the same again. CLUSTER_LOGS=DIR keeps the members' logs.
import { spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { provideNeeds } from './test-needs.mjs';

const suites = ['faults', 'network', 'full-disk', 'odd-members'];
/** Of each kind of fault; the first ones are each kind once. */
const defaultRounds = 50;
/** For a whole suite, by its rounds. What is waited for has bounds of its own: only what hangs gets there. */
const timeoutMs = (rounds) => (rounds + 10) * 2 * 60_000;

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const program = new Command('npm run faults --')
  .description(
    'Real faults of a real cluster, for a long time; the records of the clients are checked.',
  )
  .argument(
    '[filter...]',
    `which suites: those whose name holds one of these (${suites.join(', ')})`,
  )
  .option('--rounds <n>', 'faults of each kind; FAULT_ROUNDS', wholeNumber(1))
  .option('--seed <s>', 'of the choices that are made by chance; FAULT_SEED', wholeNumber(0))
  .helpOption('--help')
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .parse();
const positionals = program.args;
const { FAULT_ROUNDS = String(defaultRounds), FAULT_SEED = String(randomInt(2 ** 31)) } =
  process.env;
const { rounds = Number(FAULT_ROUNDS), seed = Number(FAULT_SEED) } = program.opts();
if (![rounds, seed].every((count) => Number.isSafeInteger(count) && count >= 0) || rounds === 0) {
  console.error('FAULT_ROUNDS and FAULT_SEED want whole numbers');
  process.exit(2);
}
const chosen = suites.filter(
  (suite) => positionals.length === 0 || positionals.some((filter) => suite.includes(filter)),
);
if (chosen.length === 0) {
  console.error(`no suite matches; there are ${suites.join(', ')}`);
  process.exit(2);
}

function wholeNumber(least) {
  return (text) => {
    const count = Number(text);
    if (Number.isSafeInteger(count) && count >= least) return count;
    throw new InvalidArgumentError(`It is a whole number from ${least} on.`);
  };
}

/** Runs a suite to its end. Answers whether all of it passed, and what it says of itself. */
async function run(suite) {
  const args = [
    '--enable-source-maps',
    '--test',
    '--test-reporter=spec',
    `--test-timeout=${timeoutMs(rounds)}`,
  ];
  const child = spawn(process.execPath, [...args, `dist/e2e/cluster/${suite}.test.js`], {
    env: { ...process.env, FAULT_ROUNDS: String(rounds), FAULT_SEED: String(seed) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    process.stdout.write(text);
    said += text;
  });
  const status = await new Promise((resolve) => child.on('close', resolve));
  const count = (name) => Number(new RegExp(`^\\S+ ${name} (\\d+)$`, 'm').exec(said)?.[1] ?? 0);
  return {
    suite,
    passed: count('pass'),
    failed: Math.max(count('fail') + count('cancelled'), status === 0 ? 0 : 1),
    pushes: /^\d+ faults, \d+ pushes; .*$/m.exec(said)?.[0],
  };
}

if (!provideNeeds({ purpose: 'the faults' })) process.exit(1);
const build = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.'], {
  stdio: 'inherit',
});
if (build.status !== 0) process.exit(1);
const results = [];
// One after the other: each has a cluster of eight processes and more.
for (const suite of chosen) results.push(await run(suite));
console.log('');
for (const { suite, passed, failed, pushes } of results) {
  const told = pushes === undefined ? '' : `; ${pushes}`;
  console.log(`${suite}: ${passed} passed, ${failed} failed${told}`);
}
const filters = positionals.map((filter) => ` ${filter}`).join('');
console.log(`the same again: npm run faults -- --rounds ${rounds} --seed ${seed}${filters}`);
process.exit(results.every(({ failed }) => failed === 0) ? 0 : 1);
