import type { Clock, Logger } from '../contract/environment.js';

/** Beyond it people are told; what NTP keeps is a thousandth of it. */
const apartMs = 60_000;

/**
 * How far another process' clock on the wall is from ours, by what it says in its signs of life. No order and no time
 * limit comes from these clocks (docs/architecture.md), but dates in logs do, and when tokens and certificates end.
 */
export class ClockDifference {
  readonly #options: { readonly clock: Clock; readonly logger: Logger; readonly facts: object };
  #aheadMs: number | undefined;

  constructor(options: {
    readonly clock: Clock;
    readonly logger: Logger;
    /** For the log: which process it is. */
    readonly facts: object;
  }) {
    this.#options = options;
  }

  /** Positive when it is ahead of ours, negative when it is behind; undefined while they are together. */
  get apartMs(): number | undefined {
    return this.#aheadMs;
  }

  /** What it said, in the answer to a question of `askedMs` by our clock. Undefined: an earlier version, which says nothing. */
  note(theirMs: number | undefined, askedMs: number): void {
    if (theirMs === undefined) return;
    const { clock, logger, facts } = this.#options;
    const nowMs = clock.nowMs();
    const aheadMs = Math.round(theirMs - (askedMs + nowMs) / 2);
    // It was said some time in between; and a question that took so long tells nothing.
    const isApart = Math.abs(aheadMs) > apartMs + Math.abs(nowMs - askedMs) / 2;
    if (isApart && this.#aheadMs === undefined) {
      logger.warn(
        { ...facts, aheadSeconds: Math.round(aheadMs / 1_000) },
        'the clocks of a storage node and of this process are apart: set them right (NTP); pushes do not depend on them, dates in logs and the ends of tokens do',
      );
    }
    this.#aheadMs = isApart ? aheadMs : undefined;
  }
}
