/** Rounds between sweeps that found nothing to do: a sweep reads every record. */
const calmRounds = 40;

/**
 * Says in which of the rounds of a front-end (a quarter of a minute each) the registry is swept: every ten minutes, and
 * soon after something was left, at first in the next round, then after twice as many each time. So is it after the
 * start, when what an earlier process of this front-end was making is still under its lease. And so is it when
 * something stayed, and another store is there, or gone, than before: it may have waited for that one.
 */
export class SweepSchedule {
  #pause = 1;
  #waited = 0;
  #seen = 0;
  #stays = false;
  #stores: string | undefined;

  /** Whether the last sweep left something. */
  get stays(): boolean {
    return this.#stays;
  }

  /**
   * To be asked once a round. `left`: how often something was left so far; `stores`: what says who is there and who is
   * gone, undefined where that is not known or of no interest.
   */
  due(left: number, stores?: string): boolean {
    this.#waited += 1;
    const known = this.#stores;
    const differs = stores !== undefined && known !== undefined && stores !== known;
    if (left > this.#seen || (this.#stays && differs)) this.#pause = 1;
    this.#seen = left;
    this.#stores = stores ?? known;
    return this.#waited >= this.#pause;
  }

  /** A sweep is over; `left` as above, what it left itself included, or undefined when it failed. */
  swept(left: number | undefined): void {
    const isClean = left === this.#seen;
    this.#stays = !isClean;
    if (isClean) this.#stores = undefined;
    this.#pause = isClean ? calmRounds : Math.min(2 * this.#pause, calmRounds);
    this.#seen = left ?? this.#seen;
    this.#waited = 0;
  }
}
