/** Rounds between sweeps that found nothing to do: a sweep reads every record. */
const calmRounds = 40;

/**
 * Says in which of the rounds of a front-end (a quarter of a minute each) the registry is swept: every ten minutes, and
 * soon after something was left, at first in the next round, then after twice as many each time. So is it after the
 * start, when what an earlier process of this front-end was making is still under its lease.
 */
export class SweepSchedule {
  #pause = 1;
  #waited = 0;
  #seen = 0;

  /** To be asked once a round. `left`: how often something was left so far. */
  due(left: number): boolean {
    this.#waited += 1;
    if (left > this.#seen) this.#pause = 1;
    this.#seen = left;
    return this.#waited >= this.#pause;
  }

  /** A sweep is over; `left` as above, what it left itself included, or undefined when it failed. */
  swept(left: number | undefined): void {
    const isClean = left === this.#seen;
    this.#pause = isClean ? calmRounds : Math.min(2 * this.#pause, calmRounds);
    this.#seen = left ?? this.#seen;
    this.#waited = 0;
  }
}
