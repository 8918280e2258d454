import type { Scheduler } from './scheduler.js';
import type { SeededRandom } from './seeded-random.js';

/** How bad the network is; probabilities for each message. */
export interface NetworkWeather {
  readonly loss: number;
  /** Delivered, but long after the sender stopped waiting. */
  readonly late: number;
  /** Slow by hundreds of milliseconds, so that others overtake it. */
  readonly slow: number;
}

export const fairWeather: NetworkWeather = { loss: 0, late: 0, slow: 0 };

/** One-way delays and losses between named places. */
export class Network {
  readonly #scheduler: Scheduler;
  readonly #random: SeededRandom;
  readonly #cut = new Set<string>();
  weather = fairWeather;

  constructor(scheduler: Scheduler, random: SeededRandom) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** Something may not arrive in time. */
  get disturbed(): boolean {
    return this.#cut.size > 0 || this.weather !== fairWeather;
  }

  /** Messages from one place to another are lost from now on. */
  cut(from: string, to: string): void {
    this.#cut.add(`${from}>${to}`);
  }

  /** Every cut is mended. */
  heal(): void {
    this.#cut.clear();
  }

  isCut(from: string, to: string): boolean {
    return this.#cut.size > 0 && this.#cut.has(`${from}>${to}`);
  }

  /** Calls `deliver` when the message arrives, if it does. */
  send(from: string, to: string, deliver: () => void): void {
    const delayMs = this.#delayMs();
    if (this.isCut(from, to) || this.#random.chance(this.weather.loss)) return;
    this.#scheduler.after(delayMs, deliver);
  }

  #delayMs(): number {
    const random = this.#random;
    if (random.chance(this.weather.late)) return random.between(1_000, 15_000);
    if (random.chance(this.weather.slow)) return random.between(20, 800);
    return random.between(0.1, 1.5);
  }
}
