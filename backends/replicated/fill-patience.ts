import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { hangingStores } from './stuck.js';
import type { ReplicaDirectory } from './voters.js';

const lookEveryMs = 5_000;
/**
 * For so long a store says that its disk hangs, and nothing is heard of the fill: what a fill writes and syncs can keep
 * the disk busy for longer than the store's own looks at it wait.
 */
const hangsForMs = 60_000;
/** A store that fills a copy tells of each mebibyte and step. The longest step is a walk over all objects. */
export const firstQuietMs = 10 * 60_000;
/** A repository in which a step takes longer than one was given more time for is filled all the same, at last. */
const longestQuietMs = 4 * 3_600_000;
const firstPauseMs = 60_000;
const longestPauseMs = 3_600_000;

/** For how long nothing need be heard of a fill, after so many that were given up. */
export function quietMs(givenUp: number): number {
  return Math.min(firstQuietMs * 2 ** givenUp, longestQuietMs);
}

/** For how long it is not tried again, after so many that were given up. */
export function pauseMs(givenUp: number): number {
  return Math.min(firstPauseMs * 2 ** (givenUp - 1), longestPauseMs);
}

/** A fill that was given up, since nothing came of it: it is tried again after a pause. */
export class StalledFill extends QuorateError {
  constructor(reason: string) {
    super('deadline-exceeded', reason);
  }
}

/**
 * Runs a fill, and gives it up with `StalledFill` when nothing was heard of it for long, or for a minute in which its
 * store said that its disk hangs. `run` tells of each sign of progress, and is aborted then; it is not waited for.
 */
export async function whileFilling<T>(
  {
    replicas,
    clock,
    storeId,
    quietForMs,
    signal,
  }: {
    readonly replicas: Pick<ReplicaDirectory, 'nodes'>;
    readonly clock: Pick<Clock, 'sleep' | 'monotonicMs'>;
    readonly storeId: string;
    readonly quietForMs: number;
    readonly signal: AbortSignal;
  },
  run: (signal: AbortSignal, heard: () => void) => Promise<T>,
): Promise<T> {
  let heardMs = clock.monotonicMs();
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const stalled = async (): Promise<string> => {
    let soundMs = heardMs;
    while (!either.aborted) {
      await clock.sleep(lookEveryMs, either);
      const nowMs = clock.monotonicMs();
      if (!hangingStores(replicas).has(storeId)) soundMs = nowMs;
      if (nowMs - Math.max(soundMs, heardMs) >= hangsForMs) {
        return 'the disk of its storage node hangs';
      }
      if (nowMs - heardMs >= quietForMs) {
        return `nothing came of it for ${Math.round(quietForMs / 60_000)} minutes`;
      }
    }
    return 'over';
  };
  try {
    const filling = run(either, () => {
      heardMs = clock.monotonicMs();
    });
    const giveUp = stalled().then((reason) => {
      // Whoever gave the signal waits for the fill itself.
      if (either.aborted) return filling;
      throw new StalledFill(reason);
    });
    return await Promise.race([filling, giveUp]);
  } finally {
    over.abort('over');
  }
}
