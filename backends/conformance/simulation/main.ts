/** `npm run simulate`: runs seeds in worker processes and prints what does not hold. */
import { parseArgs } from 'node:util';
import { runSeeds } from './run-seeds.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    seed: { type: 'string' },
    workers: { type: 'string', default: '2' },
    mutants: { type: 'boolean', default: false },
  },
});

const started = performance.now();
const first = Number(values.seed ?? 1);
const single = values.seed !== undefined && !process.argv.some((arg) => arg.startsWith('--seeds'));
const count = single ? 1 : Number(values.seeds);
const summary = await runSeeds({
  first,
  count,
  workers: Number(values.workers),
  verbose: single,
  onFailure: ({ seed, violations, steps }) => {
    console.error(`seed ${seed} failed after ${steps} steps (npm run simulate -- --seed ${seed}):`);
    for (const violation of violations) console.error(`  ${violation}`);
  },
});
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(
  `${summary.passed} of ${count} seeds passed; ${summary.steps} steps, ` +
    `${summary.acknowledged} pushes acknowledged, ${seconds} s`,
);
process.exit(summary.passed === count ? 0 : 1);
