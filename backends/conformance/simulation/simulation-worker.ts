/** A process that simulates the seeds it is sent, one after the other. Started with `substitute-modules.js`. */
import { inspect } from 'node:util';
import { simulateCrash } from './crash-sweep.js';
import { simulate } from './simulation.js';
import { crashSweep } from './run-seeds.js';
import { restartCounting } from './simulated-crypto.js';

let strayRejection: unknown;
process.on('unhandledRejection', (reason) => {
  strayRejection ??= reason;
});

process.on('disconnect', () => process.exit());
process.on('message', (message) => {
  void answer(message);
});

async function answer(message: unknown): Promise<void> {
  const { seed, verbose, troubles } = requestOf(message);
  // Errors are usual here, and their stacks a part of the cost.
  Error.stackTraceLimit = verbose ? 10 : 0;
  strayRejection = undefined;
  restartCounting();
  const log = verbose ? (line: string): void => console.log(line) : undefined;
  const sweeps = troubles?.[0] === crashSweep;
  const result = await (sweeps ? simulateCrash(seed, log) : simulate(seed, { log, troubles }));
  const violations = [...result.violations];
  if (strayRejection !== undefined) {
    violations.push(`nobody handled: ${inspect(strayRejection)}`);
  }
  process.send?.({ ...result, violations });
}

function requestOf(message: unknown): {
  seed: number;
  verbose: boolean;
  troubles: readonly string[] | undefined;
} {
  if (typeof message !== 'object' || message === null || !('seed' in message)) {
    throw new Error('that is no request');
  }
  const verbose = 'verbose' in message && message.verbose === true;
  const troubles =
    'troubles' in message && Array.isArray(message.troubles)
      ? message.troubles.map(String)
      : undefined;
  return { seed: Number(message.seed), verbose, troubles };
}
