/**
 * `npm run simulate`: runs seeds in worker processes and prints what does not hold. With `--mutants` the code is broken
 * on purpose, in one way after the other, and every one has to be noticed (docs/simulation.md).
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { mutants } from './mutants.js';
import { crashSweep, neverHappened, type RunSeeds, runSeeds, runSweep } from './run-seeds.js';
import type { SeedResult } from './simulation.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    seed: { type: 'string' },
    workers: { type: 'string' },
    mutants: { type: 'boolean', default: false },
    /** One scenario, again and again, with a crash at every single step; `--seed N`: at the Nth. */
    sweep: { type: 'boolean', default: false },
    /** Kinds of trouble, comma separated, in place of those that the seeds choose. */
    troubles: { type: 'string' },
    /** The code broken by the mutant whose name holds this. */
    mutant: { type: 'string' },
    /** Only mutants whose name holds this. */
    only: { type: 'string', default: '' },
  },
});

/** Every mutant has to be caught within so many seeds, unless told otherwise. */
const mutantSeeds = 2_000;
/** More failures than these say nothing new. */
const maxReported = 20;
let reported = 0;
const workers = wholeNumber(values.workers, Math.min(2, availableParallelism()));
const first = wholeNumber(values.seed, 1);

process.exit((await chosen()()) ? 0 : 1);

function chosen(): () => Promise<boolean> {
  if (values.sweep) return sweepCrashes;
  return values.mutants ? runMutants : runAll;
}

async function runAll(): Promise<boolean> {
  const alone = values.seed !== undefined && values.seeds === undefined;
  const count = alone ? 1 : wholeNumber(values.seeds, 100);
  const started = performance.now();
  const run: RunSeeds = {
    first,
    count,
    workers,
    verbose: alone,
    troubles: values.troubles?.split(','),
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
  const count = wholeNumber(values.seeds, mutantSeeds);
  let missed = 0;
  for (const mutation of mutants.filter(({ name }) => name.includes(values.only))) {
    const started = performance.now();
    const verdict = await verdictOn({ first, count, workers, mutation, untilFailure: true });
    if (!verdict.caught) missed++;
    console.log(`${mutation.name}: ${verdict.text} (${seconds(started)} s)`);
  }
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

function wholeNumber(text: string | undefined, otherwise: number): number {
  const number = text === undefined ? otherwise : Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  console.error('seeds and workers are whole numbers above 0');
  process.exit(2);
}
