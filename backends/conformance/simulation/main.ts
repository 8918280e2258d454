/**
 * `npm run simulate`: runs seeds in worker processes and prints what does not hold. With `--mutants` the code is broken
 * on purpose, in one way after the other, and every one has to be noticed (docs/simulation.md).
 */
import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { mutants } from './mutants.js';
import { crashSweep, neverHappened, type RunSeeds, runSeeds, runSweep } from './run-seeds.js';
import type { SeedResult } from './simulation.js';
import { troubleKinds } from './trouble-kinds.js';

interface Flags {
  readonly seeds?: number;
  readonly seed?: number;
  readonly workers: number;
  readonly mutants?: true;
  readonly sweep?: true;
  readonly troubles?: readonly string[];
  readonly mutant?: string;
  readonly only: string;
}

const values = new Command('npm run simulate --')
  .description(
    'Runs the real code against simulated disks, networks and clocks (docs/simulation.md).',
  )
  .option('--seeds <n>', 'how many seeds (default: 100; of each mutant, 2000 at most)', wholeNumber)
  .option('--seed <n>', 'the first of them; alone: only this one, telling everything', wholeNumber)
  .option('--workers <n>', 'processes', wholeNumber, Math.min(2, availableParallelism()))
  .option('--mutants', 'break the code on purpose, in each of the ways that have to be noticed')
  .option('--only <text>', 'only mutants whose name holds this', ofMutants, '')
  .option(
    '--mutant <text>',
    'runs seeds on code that is broken by the mutant whose name holds this',
    ofMutants,
  )
  .option(
    '--sweep',
    'one scenario, with a crash at each of its steps in turn; --seed N: at the Nth',
  )
  .option(
    '--troubles <list>',
    'in place of those that the seeds choose, comma separated',
    ofTroubles,
  )
  .helpOption('--help')
  .allowExcessArguments(false)
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .parse()
  .opts<Flags>();

/** Every mutant has to be caught within so many seeds, unless told otherwise. */
const mutantSeeds = 2_000;
/** More failures than these say nothing new. */
const maxReported = 20;
let reported = 0;
const { workers, seed: first = 1 } = values;

process.exit((await chosen()()) ? 0 : 1);

function chosen(): () => Promise<boolean> {
  if (values.sweep === true) return sweepCrashes;
  return values.mutants === true ? runMutants : runAll;
}

async function runAll(): Promise<boolean> {
  const alone = values.seed !== undefined && values.seeds === undefined;
  const count = alone ? 1 : (values.seeds ?? 100);
  const started = performance.now();
  const run: RunSeeds = {
    first,
    count,
    workers,
    verbose: alone,
    troubles: values.troubles,
    mutation: mutants.find(
      ({ name }) => values.mutant !== undefined && name.includes(values.mutant),
    ),
    onFailure: report,
  };
  const summary = await runSeeds(run);
  const { passed, steps, acknowledged, happened } = summary;
  console.log(
    `${passed} of ${count} seeds passed; ${steps} steps, ${acknowledged} pushes acknowledged, ` +
      `${seconds(started)} s`,
  );
  const counts = [...happened].filter(([, times]) => times > 0);
  counts.sort(([a], [b]) => a.localeCompare(b));
  console.log(`it happened: ${counts.map(([what, times]) => `${what} ${times}`).join(', ')}`);
  const never = neverHappened(summary, run);
  for (const what of never) console.error(`it never happened: ${what}`);
  return passed === count && never.length === 0;
}

async function sweepCrashes(): Promise<boolean> {
  const started = performance.now();
  if (values.seed !== undefined) {
    const troubles = [crashSweep];
    const alone = { first, count: 1, workers, verbose: true, troubles, onFailure: report };
    return (await runSeeds(alone)).failed.length === 0;
  }
  const { points, failed } = await runSweep({ workers, onFailure: report });
  console.log(`${points} crash points, ${failed.length} failed, ${seconds(started)} s`);
  return points > 0 && failed.length === 0;
}

async function runMutants(): Promise<boolean> {
  const count = values.seeds ?? mutantSeeds;
  let missed = 0;
  const left = mutants.filter(({ name }) => name.includes(values.only));
  // Most are caught by the first seeds: a process for each of several mutants is done sooner than several for one.
  const work = async (): Promise<void> => {
    for (let mutation = left.shift(); mutation !== undefined; mutation = left.shift()) {
      const started = performance.now();
      const begin = values.seed ?? mutation.from ?? 1;
      const run = { first: begin, count, workers: 1, mutation, untilFailure: true };
      const verdict = await verdictOn(run);
      if (!verdict.caught) missed++;
      console.log(`${mutation.name}: ${verdict.text} (${seconds(started)} s)`);
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
  console.log(missed === 0 ? 'every mutant was caught' : `${missed} mutants were not caught`);
  return missed === 0;
}

async function verdictOn(run: RunSeeds): Promise<{ caught: boolean; text: string }> {
  try {
    const { failed } = await runSeeds(run);
    const [first] = failed.toSorted((a, b) => a.seed - b.seed);
    if (first === undefined) return { caught: false, text: `NOT CAUGHT in ${run.count} seeds` };
    const { seed, steps, violations } = first;
    return { caught: true, text: `caught by seed ${seed} in ${steps} steps: ${violations[0]}` };
  } catch (error) {
    return { caught: false, text: `COULD NOT BE TRIED: ${String(error)}` };
  }
}

function report({ seed, violations, steps }: SeedResult): void {
  if (++reported > maxReported) return;
  console.error(`seed ${seed} failed after ${steps} steps (npm run simulate -- --seed ${seed}):`);
  for (const violation of violations) console.error(`  ${violation}`);
}

function seconds(startedMs: number): string {
  return ((performance.now() - startedMs) / 1000).toFixed(1);
}

/** A name that is mistyped must not pass for mutants that were caught, or for code that is broken. */
function ofMutants(text: string): string {
  if (mutants.some(({ name }) => name.includes(text))) return text;
  throw new InvalidArgumentError('No mutant has that in its name.');
}

function ofTroubles(text: string): readonly string[] {
  const wanted = text.split(',').map((name) => name.trim());
  const unknown = wanted.find((name) => !troubleKinds.includes(name));
  if (unknown === undefined) return wanted;
  throw new InvalidArgumentError(
    `There is no trouble called "${unknown}"; there are: ${troubleKinds.join(', ')}.`,
  );
}

function wholeNumber(text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  throw new InvalidArgumentError('It is a whole number above 0.');
}
