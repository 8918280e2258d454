import type {
  Coordinator,
  KeyValue,
  OperationResult,
  RangeOptions,
} from '../contract/coordinator.js';
import type { Clock, Logger, Meter } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { PastReads } from '../contract/past-reads.js';

interface Remembered {
  readonly value: KeyValue | undefined;
  /** Monotonic times. */
  readonly readMs: number;
  readonly usedMs: number;
}

/** Names, repositories and accounts: what a fetch is judged by. */
const remembered = [keys.names, keys.repos, keys.users, keys.sshKeys, keys.tokens];
/** Some 10 MB; the ones used longest ago are forgotten first. */
const maxRemembered = 10_000;
/** So old is what is remembered at most when the coordinator is lost. */
const refreshEveryMs = 30_000;
/** Keys read again in one transaction: the coordinator takes 128. */
const refreshedTogether = 100;
/** How soon it is noticed that the coordinator answers again. */
const probeEveryMs = 1_000;

export interface PastReadsOptions {
  readonly coordinator: Coordinator;
  /** What was read longer ago is not believed. */
  readonly maxAgeMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: Meter;
}

/**
 * Remembers what goes through `coordinator`. A watch would tell of changes sooner, and prove nothing: a watch that has
 * silently ended looks like one without events.
 */
export class PastMemory implements PastReads {
  /** The coordinator; answers of its linearizable gets are remembered. */
  readonly coordinator: Coordinator;
  readonly #options: PastReadsOptions;
  /** In order of last use. */
  readonly #entries = new Map<string, Remembered>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;
  #lostSinceMs: number | undefined;

  constructor(options: PastReadsOptions) {
    this.#options = options;
    const { coordinator } = options;
    this.coordinator = {
      limits: coordinator.limits,
      get: (key, how) => this.#get(key, how),
      range: (key, how) => this.#heard(coordinator.range(key, how)),
      transaction: (transaction) => this.#heard(coordinator.transaction(transaction)),
      grantLease: (ttlMs) => coordinator.grantLease(ttlMs),
      leaseLeft: (id) => coordinator.leaseLeft(id),
      watch: (key, how) => coordinator.watch(key, how),
      identity: () => coordinator.identity(),
      ping: () => this.#heard(coordinator.ping()),
      close: () => coordinator.close(),
    };
    options.meter.gauge('coordinator_lost_seconds', {}, () => (this.lostForMs ?? 0) / 1000);
  }

  get lostForMs(): number | undefined {
    const since = this.#lostSinceMs;
    return since === undefined ? undefined : this.#options.clock.monotonicMs() - since;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  get(key: string): KeyValue | undefined {
    const entry = this.#entries.get(key);
    const { clock, maxAgeMs } = this.#options;
    if (entry !== undefined && clock.monotonicMs() - entry.readMs <= maxAgeMs) return entry.value;
    throw new QuorateError(
      'unavailable',
      'the coordinator cannot be reached, and what this asks for was not read here before',
    );
  }

  async orPast<T>(ask: () => Promise<T>, recall: () => Promise<T>): Promise<T> {
    // Asking takes as long as the coordinator is waited for; what is known to be in vain comes second.
    const lost = this.#lostSinceMs !== undefined;
    if (lost) {
      try {
        return await recall();
      } catch (error) {
        if (!isUnavailable(error)) throw error;
      }
    }
    try {
      return await ask();
    } catch (error) {
      if (lost || !isUnavailable(error)) throw error;
      return recall().catch((unknown: unknown) => {
        throw isUnavailable(unknown) ? error : unknown;
      });
    }
  }

  async #get(
    key: string,
    how: Pick<RangeOptions, 'linearizable' | 'signal'> = {},
  ): Promise<KeyValue | undefined> {
    const { coordinator, clock } = this.#options;
    const askedMs = clock.monotonicMs();
    const value = await this.#heard(coordinator.get(key, how));
    if (how.linearizable !== false)
      this.#remember(key, { value, readMs: askedMs, usedMs: askedMs });
    return value;
  }

  /** That there is nothing is remembered only of what was there, or anybody could fill the memory with guesses. */
  #remember(key: string, entry: Remembered): void {
    const before = this.#entries.get(key);
    const known = before !== undefined || key === keys.accessRevision;
    const worth = entry.value !== undefined && remembered.some((prefix) => key.startsWith(prefix));
    if (!known && !worth) return;
    // Answers may overtake each other.
    if (before !== undefined && before.readMs > entry.readMs) return;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > maxRemembered && oldest !== undefined) this.#entries.delete(oldest);
  }

  /** Notes whether the coordinator answers. */
  async #heard<T>(asked: Promise<T>): Promise<T> {
    try {
      const answer = await asked;
      this.#found();
      return answer;
    } catch (error) {
      if (isUnavailable(error)) this.#lost(error);
      throw error;
    }
  }

  #lost(error: unknown): void {
    if (this.#lostSinceMs !== undefined || this.#closing.signal.aborted) return;
    this.#lostSinceMs = this.#options.clock.monotonicMs();
    this.#options.logger.error(
      { component: 'coordinator', err: error },
      'the coordinator cannot be reached: nothing is committed, and only eventual reads are served',
    );
  }

  #found(): void {
    if (this.#lostSinceMs === undefined) return;
    const lostMs = this.lostForMs;
    this.#lostSinceMs = undefined;
    this.#options.logger.info(
      { component: 'coordinator', lost_ms: lostMs },
      'the coordinator answers again',
    );
  }

  async #run(): Promise<void> {
    const { clock, logger } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await clock.sleep(probeEveryMs, signal);
      if (signal.aborted) return;
      try {
        if (this.#lostSinceMs !== undefined) await this.coordinator.ping();
        await this.#refresh();
      } catch (error) {
        logger.debug({ component: 'coordinator', err: error }, 'nothing is read again now');
      }
    }
  }

  /** Reads again what was used lately, and forgets the rest. */
  async #refresh(): Promise<void> {
    const { clock, maxAgeMs } = this.#options;
    const nowMs = clock.monotonicMs();
    const due: string[] = [];
    for (const [key, { readMs, usedMs }] of this.#entries) {
      if (nowMs - usedMs > maxAgeMs) this.#entries.delete(key);
      else if (nowMs - readMs >= refreshEveryMs) due.push(key);
    }
    for (let from = 0; from < due.length && !this.#closing.signal.aborted;) {
      await this.#readAgain(due.slice(from, (from += refreshedTogether)));
    }
  }

  async #readAgain(some: readonly string[]): Promise<void> {
    const readMs = this.#options.clock.monotonicMs();
    const { results } = await this.coordinator.transaction({
      compares: [],
      success: some.map((key) => ({ type: 'get', key })),
      failure: [],
    });
    for (const [index, key] of some.entries()) {
      const before = this.#entries.get(key);
      const result = results[index];
      if (before === undefined || result === undefined || before.readMs > readMs) continue;
      // In its place: it was not used.
      this.#entries.set(key, { ...before, value: found(result), readMs });
    }
  }
}

function found(result: OperationResult): KeyValue | undefined {
  return result.type === 'get' ? result.entries[0] : undefined;
}

function isUnavailable(error: unknown): boolean {
  return asQuorateError(error).code === 'unavailable';
}
