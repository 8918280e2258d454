import type { Clock } from '../contract/environment.js';

/** For so long after a push without locks lost its race. Who loses is judged twice: not again and again. */
const afterLossMs = 5_000;
/** Whoever is judged for longer, and not only since a store was late (`Patience`), would lose much. */
const slowMs = 3_000;
/** A repository whose hooks are slow has slow hooks tomorrow as well; asked again now and then. */
const afterSlowMs = 10 * 60_000;
/** Repositories that are remembered. */
const maxAvoided = 1_000;

/** Of one change that runs. */
export interface Running {
  /** Nothing suggests that another change of the repository gets in first: it may do without locks. */
  readonly alone: boolean;
  /** To be called when it is over. */
  readonly leave: () => void;
}

/**
 * What this process knows of how much changes of one repository are in each other's way. Only a guess, by which it is
 * decided whether a push takes locks: what is certain is what the commit compares.
 */
export class Contention {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** Changes that run, by repository. */
  readonly #running = new Map<string, number>();
  /** Until when locks are taken, by repository; the latest to be told of last. */
  readonly #avoided = new Map<string, number>();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  enter(repositoryId: string): Running {
    const others = this.#running.get(repositoryId) ?? 0;
    this.#running.set(repositoryId, others + 1);
    return {
      alone: others === 0 && !this.#isAvoided(repositoryId),
      leave: () => {
        const left = (this.#running.get(repositoryId) ?? 1) - 1;
        if (left === 0) this.#running.delete(repositoryId);
        else this.#running.set(repositoryId, left);
      },
    };
  }

  /** A push without locks was overtaken. */
  lost(repositoryId: string): void {
    this.#avoid(repositoryId, afterLossMs);
  }

  /** So long it took from the basis to the commit. */
  judged(repositoryId: string, tookMs: number): void {
    if (tookMs >= slowMs) this.#avoid(repositoryId, afterSlowMs);
  }

  #isAvoided(repositoryId: string): boolean {
    const untilMs = this.#avoided.get(repositoryId);
    if (untilMs === undefined) return false;
    if (this.#clock.monotonicMs() < untilMs) return true;
    this.#avoided.delete(repositoryId);
    return false;
  }

  #avoid(repositoryId: string, forMs: number): void {
    const untilMs = this.#clock.monotonicMs() + forMs;
    const known = this.#avoided.get(repositoryId) ?? 0;
    this.#avoided.delete(repositoryId);
    this.#avoided.set(repositoryId, Math.max(known, untilMs));
    const [oldest] = this.#avoided.keys();
    if (this.#avoided.size > maxAvoided && oldest !== undefined) this.#avoided.delete(oldest);
  }
}
