import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger, Random } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import { ReadableRecords } from './readable-records.js';

export interface ScrubDependencies {
  readonly coordinator: Coordinator;
  readonly replica: Pick<Replica, 'storeId' | 'verify'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** In how long everything is to be read once; 0: never. */
  readonly intervalMs: number;
  /** Has a damaged copy filled anew; absent where no other store could have it. */
  readonly reportDamage?: (repositoryId: string, storeId: string) => Promise<void>;
}

/** Between two repositories at least, so that scrubbing never takes all of a disk. */
const minPauseMs = 1_000;
/** A copy that was verified is believed for so long, whatever git does with it: clients can make git fail. */
const believedMs = 60 * 60_000;
/** What is known to be damaged may have been filled anew by then, and be damaged again. */
const knownDamagedMs = 5 * 60_000;
/**
 * So many times as long as a verification took that came to nothing, the copy is not read again for a mere suspicion:
 * what git is short of it may be short of for long, and reading takes hours of a large repository.
 */
const pauseTimes = 9;
/** Of which it is known when; what is beyond is left to the next round. */
const maxSuspects = 10_000;
/**
 * What could not be verified, or not be reported, is tried again after this, each time twice as long: a shortage of the
 * machine passes. After so many times it is left to the next round, or to whoever meets trouble with it.
 */
const againMs = 10 * 60_000;
const maxAgain = 5;
/** How soon a node that has nothing looks again. */
const idlePauseMs = 60_000;

/** `gone`: there is no such copy any more. */
type Found = 'sound' | 'damaged' | 'unknown' | 'gone';

/**
 * Reads what a store has from its disk again, one repository at a time, spread over the interval. Equal digests say
 * that refs agree; only reading says that their objects are sound.
 */
export class Scrub {
  readonly #dependencies: ScrubDependencies;
  readonly #records: ReadableRecords;
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;
  readonly #suspects = new Set<string>();
  /** Until when what was suspected is not read again, by repository. */
  readonly #believed = new Map<string, number>();
  #suspecting: Promise<void> | undefined;
  /** What is to be tried again: how often it was, and when it will be. */
  readonly #unverified = new Map<string, { readonly tries: number; readonly dueMs: number }>();
  #retrying: Promise<void> | undefined;

  constructor(dependencies: ScrubDependencies) {
    this.#dependencies = dependencies;
    this.#records = new ReadableRecords(dependencies, 'scrub');
  }

  start(): void {
    if (this.#dependencies.intervalMs > 0) this.#running ??= this.#run();
  }

  /** Has a copy read soon that may be damaged, if it was not just now; one after the other. */
  suspect(repositoryId: string): void {
    const nowMs = this.#dependencies.clock.monotonicMs();
    for (const [id, untilMs] of this.#believed) {
      if (untilMs <= nowMs) this.#believed.delete(id);
    }
    if (this.#closing.signal.aborted || this.#believed.has(repositoryId)) return;
    if (this.#believed.size >= maxSuspects) return;
    this.#believed.set(repositoryId, nowMs + believedMs);
    this.#suspects.add(repositoryId);
    this.#beginLooking();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
    await this.#retrying;
    await this.#suspecting;
  }

  #beginLooking(): void {
    this.#suspecting ??= this.#lookInto().finally(() => {
      this.#suspecting = undefined;
      // One may have come after the last look.
      if (this.#suspects.size > 0 && !this.#closing.signal.aborted) this.#beginLooking();
    });
  }

  /** Never rejects. */
  async #lookInto(): Promise<void> {
    const { clock } = this.#dependencies;
    const { signal } = this.#closing;
    for (const id of this.#suspects) {
      // Whoever met the damage first ends its work meanwhile.
      await clock.sleep(minPauseMs, signal);
      if (signal.aborted) return;
      this.#suspects.delete(id);
      const startedMs = clock.monotonicMs();
      const found = await this.#verify(id);
      const endedMs = clock.monotonicMs();
      if (found === 'damaged') this.#believed.set(id, endedMs + knownDamagedMs);
      // Whoever meets it again brings it up again.
      const pauseMs = Math.min(believedMs, (endedMs - startedMs) * pauseTimes);
      if (found === 'unknown') this.#believed.set(id, endedMs + pauseMs);
      if (found === 'gone') this.#believed.delete(id);
    }
  }

  /**
   * The first round begins anywhere, after a part of a pause: a server that is started again and again gets to all that
   * it has in the end, and does not read the same each time.
   */
  async #run(): Promise<void> {
    const { clock, logger, intervalMs } = this.#dependencies;
    const { signal } = this.#closing;
    let begun = false;
    while (!signal.aborted) {
      try {
        const ids = await this.#own();
        if (ids.length === 0) await clock.sleep(Math.min(idlePauseMs, intervalMs), signal);
        const pauseMs = Math.max(minPauseMs, intervalMs / ids.length);
        const first = begun ? 0 : Math.floor(this.#fraction() * ids.length);
        for (const [index, id] of [...ids.slice(first), ...ids.slice(0, first)].entries()) {
          await clock.sleep(begun || index > 0 ? pauseMs : this.#fraction() * pauseMs, signal);
          if (signal.aborted) return;
          await this.#verify(id);
        }
        begun ||= ids.length > 0;
      } catch (error) {
        logger.warn({ component: 'scrub', err: error }, 'scrubbing goes on later');
        await clock.sleep(idlePauseMs, signal);
      }
    }
  }

  /** At least 0, less than 1. */
  #fraction(): number {
    const [byte = 0, next = 0] = this.#dependencies.random.bytes(2);
    return (byte * 256 + next) / 65_536;
  }

  /** Repositories that count on a copy in this store, or have it read. */
  async #own(): Promise<readonly string[]> {
    const { replica } = this.#dependencies;
    const ids: string[] = [];
    for await (const { id, state, voters, readers = [] } of this.#records.all()) {
      if (state !== 'active') continue;
      if ([...voters, ...readers].some(({ storeId }) => storeId === replica.storeId)) ids.push(id);
    }
    return ids;
  }

  /** What cannot be verified now is tried again. Never rejects. */
  async #verify(id: string): Promise<Found> {
    const found = await this.#found(id);
    if (found === 'unknown') this.#tryAgain(id);
    else this.#unverified.delete(id);
    return found;
  }

  #tryAgain(id: string): void {
    const { clock } = this.#dependencies;
    const tries = this.#unverified.get(id)?.tries ?? 0;
    this.#unverified.delete(id);
    if (tries === maxAgain || this.#unverified.size >= maxSuspects) return;
    const dueMs = clock.monotonicMs() + againMs * 2 ** tries;
    this.#unverified.set(id, { tries: tries + 1, dueMs });
    this.#beginRetrying();
  }

  #beginRetrying(): void {
    this.#retrying ??= this.#retry().finally(() => {
      this.#retrying = undefined;
      // One may have come after the last look.
      if (this.#unverified.size > 0 && !this.#closing.signal.aborted) this.#beginRetrying();
    });
  }

  /** Never rejects. */
  async #retry(): Promise<void> {
    const { clock } = this.#dependencies;
    const { signal } = this.#closing;
    while (this.#unverified.size > 0 && !signal.aborted) {
      await clock.sleep(idlePauseMs, signal);
      const nowMs = clock.monotonicMs();
      for (const [id, { dueMs }] of this.#unverified) {
        if (signal.aborted || dueMs > nowMs) continue;
        this.#suspects.delete(id);
        await this.#verify(id);
        await clock.sleep(minPauseMs, signal);
      }
    }
  }

  async #found(id: string): Promise<Found> {
    const { replica, reportDamage, logger } = this.#dependencies;
    try {
      const { problems } = await replica.verify(id, { signal: this.#closing.signal });
      if (problems.length === 0) return 'sound';
      await reportDamage?.(id, replica.storeId);
      return 'damaged';
    } catch (error) {
      const { code } = asQuorateError(error);
      if (this.#closing.signal.aborted || code === 'not-found') return 'gone';
      logger.warn(
        { component: 'scrub', repo: id, err: error },
        'a copy is not known to be sound; it is verified again later',
      );
      return 'unknown';
    }
  }
}
