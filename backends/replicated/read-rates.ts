import { z } from 'zod';
import type { Coordinator, KeyValue } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import type { Presence } from './presence.js';
import { encodeRecord, scan } from './records.js';

/** `read-rates/{front-end}`: repository -> reads per second through that front-end. */
const ratesSchema = z.record(z.string(), z.number().min(0));

/** Reads of so long ago count a third. Long enough that one CI run with its few clones is no crowd. */
const memoryMs = 10_000;
const reportEveryMs = 5_000;
/** Repositories that are counted: some 1 MB. Those read longest ago are forgotten. */
const maxCounted = 10_000;
/** In one report: 2 KB. There are never many that are hot at a time. */
const maxReported = 32;

interface RateDependencies {
  readonly coordinator: Coordinator;
  readonly presence: Pick<Presence, 'lease'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Reads per second from which on a repository is reported. */
  readonly from: number;
}

interface Counted {
  /** Reads, each fading with its age. */
  readonly score: number;
  readonly atMs: number;
}

/**
 * How often each repository is read through this front-end, and the word of it to whoever keeps the replica sets: only
 * of those that are read often, and only for as long as this front-end lives.
 */
export class ReadRates {
  readonly #dependencies: RateDependencies;
  /** In order of the last read. */
  readonly #counted = new Map<string, Counted>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;
  #reported = false;

  constructor(dependencies: RateDependencies) {
    this.#dependencies = dependencies;
  }

  note(repositoryId: string): void {
    const nowMs = this.#dependencies.clock.monotonicMs();
    const score = this.#score(repositoryId, nowMs) + 1;
    this.#counted.delete(repositoryId);
    this.#counted.set(repositoryId, { score, atMs: nowMs });
    const [oldest] = this.#counted.keys();
    if (this.#counted.size > maxCounted && oldest !== undefined) this.#counted.delete(oldest);
  }

  /** Reads per second. */
  rate(repositoryId: string): number {
    const nowMs = this.#dependencies.clock.monotonicMs();
    return this.#score(repositoryId, nowMs) / (memoryMs / 1000);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async report(): Promise<void> {
    const { coordinator, presence, from } = this.#dependencies;
    const hot = [...this.#counted.keys()]
      .map((id): [string, number] => [id, Math.round(this.rate(id) * 100) / 100])
      .filter(([, rate]) => rate >= from)
      .sort(([, a], [, b]) => b - a)
      .slice(0, maxReported);
    if (hot.length === 0 && !this.#reported) return;
    const { id, lease } = await presence.lease();
    const value = encodeRecord(Object.fromEntries(hot));
    await coordinator.transaction({
      compares: [],
      success: [
        hot.length === 0
          ? { type: 'delete', key: keys.readRate(id) }
          : { type: 'put', key: keys.readRate(id), value, lease },
      ],
      failure: [],
    });
    this.#reported = hot.length > 0;
  }

  #score(repositoryId: string, nowMs: number): number {
    const before = this.#counted.get(repositoryId);
    return before === undefined ? 0 : before.score * Math.exp((before.atMs - nowMs) / memoryMs);
  }

  async #run(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await clock.sleep(reportEveryMs, signal);
      if (signal.aborted) return;
      try {
        await this.report();
      } catch (error) {
        logger.debug({ component: 'read', err: error }, 'what is read often is told later');
      }
    }
  }
}

/** Reads per second of what all front-ends report. */
export async function readRates(coordinator: Coordinator): Promise<ReadonlyMap<string, number>> {
  const sums = new Map<string, number>();
  for await (const entry of scan(coordinator, keys.readRates)) {
    for (const [id, rate] of Object.entries(ratesIn(entry))) {
      sums.set(id, (sums.get(id) ?? 0) + rate);
    }
  }
  return sums;
}

/** One of a later version says nothing, and is no reason to keep no set. */
function ratesIn({ value }: KeyValue): Readonly<Record<string, number>> {
  const parsed = ratesSchema.safeParse(JSON.parse(Buffer.from(value).toString('utf8')));
  return parsed.success ? parsed.data : {};
}
