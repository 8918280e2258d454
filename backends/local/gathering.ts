import type { Clock } from '../contract/environment.js';
import type { PruneGate } from './prune-gate.js';

/** Of waiting; a disk on which an apply takes longer has other trouble. */
const maxWaitMs = 20;

/**
 * What an apply costs is mostly its syncs, however many pushes it applies. So a committed push waits a moment for
 * those that are being judged or committed, at most as long as the last apply took: it ends at most that much later,
 * and each that comes in time saves an apply.
 */
export class Gathering {
  readonly #clock: Clock;
  readonly #gate: PruneGate;
  /** Committed pushes that wait, or are being applied. */
  #present = 0;
  /** How long the last apply took. */
  #applyMs = 0;
  #waiting: (() => void)[] = [];

  constructor(clock: Clock, gate: PruneGate) {
    this.#clock = clock;
    this.#gate = gate;
  }

  /** Runs `apply`, which applies what is committed by then, when the other pushes are here or the time is over. */
  async join(apply: () => Promise<void>): Promise<void> {
    this.#present += 1;
    try {
      if (this.#complete) this.#wake();
      else await this.#others();
      await apply();
    } finally {
      this.#present -= 1;
    }
  }

  /** Told of each apply. */
  took(applyMs: number): void {
    this.#applyMs = applyMs;
  }

  /** Every push of the repository is here. One that is refused meanwhile is waited for in vain. */
  get #complete(): boolean {
    return this.#gate.judging <= this.#present;
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #others(): Promise<void> {
    const timer = new AbortController();
    const here = new Promise<void>((resolve) => this.#waiting.push(resolve));
    const late = this.#clock.sleep(Math.min(maxWaitMs, this.#applyMs), timer.signal);
    await Promise.race([here, late]);
    timer.abort('over');
    // Whoever waits now goes along.
    this.#wake();
  }
}
