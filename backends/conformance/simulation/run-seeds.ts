import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Mutation } from './mutation.js';
import type { SeedResult } from './simulation.js';

/** In place of kinds of trouble: the seeds are the numbers of crash points (crash-sweep.ts). */
export const crashSweep = 'crash sweep';

export interface RunSeeds {
  readonly first: number;
  readonly count: number;
  /** Every so many of them only. */
  readonly stride?: number;
  readonly workers: number;
  readonly verbose?: boolean;
  readonly mutation?: Mutation | undefined;
  /** Kinds of trouble (faults.ts) in place of those that the seeds choose; a mutation brings its own. */
  readonly troubles?: readonly string[] | undefined;
  readonly onResult?: (result: SeedResult) => void;
  readonly onFailure?: (result: SeedResult) => void;
  /** Ends everything after the first failure. */
  readonly untilFailure?: boolean;
}

export interface Summary {
  readonly passed: number;
  readonly failed: readonly SeedResult[];
  readonly steps: number;
  readonly acknowledged: number;
  /** How often what happened, in all of them. */
  readonly happened: ReadonlyMap<string, number>;
}

/** In fewer seeds than these a kind of event may be missing by chance. */
export const enoughSeeds = 500;

/**
 * What ought to come about and never did, in so many seeds that it should have: then they do not test what they are
 * said to test. Not for seeds that were given their troubles.
 */
export function neverHappened(
  { happened }: Pick<Summary, 'happened'>,
  { count, troubles, mutation }: Pick<RunSeeds, 'count' | 'troubles' | 'mutation'>,
): readonly string[] {
  if (count < enoughSeeds || troubles !== undefined || mutation !== undefined) return [];
  return [...happened].flatMap(([what, times]) => (times === 0 ? [what] : []));
}

/** Deals the seeds out to worker processes. Throws when a worker ends by itself: then it is the simulator's own fault. */
export async function runSeeds(options: RunSeeds): Promise<Summary> {
  const failed: SeedResult[] = [];
  let [passed, steps, acknowledged, next] = [0, 0, 0, options.first];
  const happened = new Map<string, number>();
  const end = options.first + options.count;
  const take = (): number | undefined => {
    if (next >= end || (options.untilFailure === true && failed.length > 0)) return undefined;
    const taken = next;
    next += options.stride ?? 1;
    return taken;
  };
  const note = (result: SeedResult): void => {
    steps += result.steps;
    acknowledged += result.acknowledged;
    for (const [what, times] of Object.entries(result.happened)) {
      happened.set(what, (happened.get(what) ?? 0) + times);
    }
    options.onResult?.(result);
    if (result.violations.length === 0) {
      passed++;
      return;
    }
    failed.push(result);
    options.onFailure?.(result);
  };
  await Promise.all(
    Array.from({ length: Math.min(options.workers, options.count) }, () =>
      work(options, take, note),
    ),
  );
  return { passed, failed, steps, acknowledged, happened };
}

/** A process needs a hundred seeds to become quick, while what it runs often is compiled; what it keeps is little. */
const seedsPerWorker = 5_000;

/**
 * Most of what a seed makes is gone soon: the less often the young generation is looked through, the less of it is
 * copied; but what does not fit into the cache of a core costs more than it saves (128 MB: 4 % more CPU, 512 MB: 15 %).
 * By one thread: the other cores are for other seeds.
 */
const memory = ['--single-threaded-gc', '--min-semi-space-size=32', '--max-semi-space-size=32'];

async function work(
  options: RunSeeds,
  take: () => number | undefined,
  note: (result: SeedResult) => void,
): Promise<void> {
  let worker: ChildProcess | undefined;
  try {
    for (let seed = take(), count = 1; seed !== undefined; seed = take(), count++) {
      worker ??= startWorker(options);
      note(await askWorker(worker, seed, options));
      if (count % seedsPerWorker !== 0) continue;
      await end(worker);
      worker = undefined;
    }
  } finally {
    await end(worker);
  }
}

async function end(worker: ChildProcess | undefined): Promise<void> {
  if (worker === undefined || !worker.connected) return;
  const ended = once(worker, 'exit');
  worker.disconnect();
  await ended;
}

function startWorker({ mutation, verbose }: RunSeeds): ChildProcess {
  const { QUORATE_MUTATION: _, ...env } = process.env;
  return fork(fileURLToPath(new URL('./simulation-worker.js', import.meta.url)), {
    execArgv: [
      ...memory,
      // Others have no stacks (simulation-worker.ts).
      ...(verbose === true ? ['--enable-source-maps'] : []),
      '--import',
      new URL('./substitute-modules.js', import.meta.url).href,
    ],
    env: mutation === undefined ? env : { ...env, QUORATE_MUTATION: JSON.stringify(mutation) },
  });
}

function askWorker(
  worker: ChildProcess,
  seed: number,
  { verbose, troubles, mutation }: RunSeeds,
): Promise<SeedResult> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void => {
      worker.off('message', onMessage);
      reject(new Error(`the worker ended with ${code} at seed ${seed}`));
    };
    const onMessage = (message: unknown): void => {
      worker.off('exit', onExit);
      if (isResult(message)) resolve(message);
      else reject(new Error(`the worker sent no result of seed ${seed}`));
    };
    worker.once('exit', onExit);
    worker.once('message', onMessage);
    worker.send({ seed, verbose, troubles: troubles ?? mutation?.troubles });
  });
}

function isResult(message: unknown): message is SeedResult {
  return typeof message === 'object' && message !== null && 'violations' in message;
}

/** Runs every `stride`th of the crash points of the sweep. */
export async function runSweep(
  options: Pick<RunSeeds, 'workers' | 'stride' | 'onFailure'>,
): Promise<Summary & { readonly points: number }> {
  const troubles = [crashSweep];
  const base = await runSeeds({ ...options, troubles, first: 0, count: 1 });
  const points = base.happened.get('crash points') ?? 0;
  if (base.failed.length > 0 || points === 0) return { ...base, points };
  return { ...(await runSeeds({ ...options, troubles, first: 1, count: points })), points };
}
