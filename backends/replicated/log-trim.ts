import type { Clock, Logger } from '../contract/environment.js';
import type { Coordinator, Operation } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { decodeHead, decodeLogEntry, scan } from './records.js';

export interface LogTrimDependencies {
  readonly coordinator: Coordinator;
  /** The lowest generation that every counting voter of a repository has applied durably; undefined: unknown now. */
  readonly appliedEverywhere: (repositoryId: string) => Promise<number | undefined>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** How often repositories with entries left behind are looked at: their nodes are away, for seconds or for hours. */
const trimEveryMs = 5_000;
/** Deletions in one transaction, of the 128 that it may hold; as many compares. */
const batchSize = 100;

/**
 * Removes entries that the outbox had to leave since some voter had not applied them. An entry goes only when its
 * outbox record is gone: as long as that is there, the front-end that committed it may still look for it.
 */
export class LogTrim {
  readonly #dependencies: LogTrimDependencies;
  /** By repository: since when on the monotonic clock, and how many generations some voter may lack. */
  readonly #left = new Map<string, { readonly sinceMs: number; generations: number }>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;

  constructor(dependencies: LogTrimDependencies) {
    this.#dependencies = dependencies;
  }

  /** Repositories whose entries wait for some voter: how many there are, and how far and how long the worst lag. */
  get lag(): { readonly repositories: number; readonly generations: number; readonly ms: number } {
    const { clock } = this.#dependencies;
    let generations = 0;
    // In the order in which they came.
    const [oldest] = this.#left.values();
    for (const one of this.#left.values()) generations = Math.max(generations, one.generations);
    const ms = oldest === undefined ? 0 : clock.monotonicMs() - oldest.sinceMs;
    return { repositories: this.#left.size, generations, ms };
  }

  later(repositoryId: string): void {
    if (!this.#left.has(repositoryId)) {
      const sinceMs = this.#dependencies.clock.monotonicMs();
      this.#left.set(repositoryId, { sinceMs, generations: 1 });
    }
    if (this.#closing.signal.aborted) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Finds what an earlier process, or another front-end, left. */
  async resume(): Promise<void> {
    const { coordinator } = this.#dependencies;
    for await (const { key } of scan(coordinator, keys.allLogs, { keysOnly: true })) {
      this.later(key.slice(keys.allLogs.length).split('/', 1)[0] ?? '');
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    while (this.#left.size > 0) {
      await clock.sleep(trimEveryMs, signal);
      if (signal.aborted) return;
      for (const [repositoryId, lag] of this.#left) {
        try {
          if (await this.trim(repositoryId)) this.#left.delete(repositoryId);
          else lag.generations = await this.#generationsIn(repositoryId);
        } catch (error) {
          logger.warn(
            { component: 'log', repo: repositoryId, err: error },
            'the push log was not trimmed yet',
          );
        }
      }
    }
  }

  /** True when nothing is left to trim, or others will do it. */
  async trim(repositoryId: string): Promise<boolean> {
    const { coordinator, appliedEverywhere } = this.#dependencies;
    const applied = await appliedEverywhere(repositoryId);
    if (applied === undefined) return false;
    const log = keys.log(repositoryId);
    const { entries, more } = await coordinator.range(log, {
      rangeEnd: prefixEnd(log),
      limit: batchSize,
    });
    const due = entries.map(decodeLogEntry).filter(({ generation }) => generation <= applied);
    const open = await this.#openPushes(repositoryId);
    const deletes = due
      .filter(({ pushId }) => !open.has(pushId))
      .map(({ generation }): Operation => ({
        type: 'delete',
        key: keys.logEntry(repositoryId, generation),
      }));
    if (deletes.length > 0) {
      await coordinator.transaction({ compares: [], success: deletes, failure: [] });
    }
    // What is in an outbox is trimmed by whoever empties that.
    return !more && due.length === entries.length;
  }

  /** From the oldest entry that is there to the head. */
  async #generationsIn(repositoryId: string): Promise<number> {
    const { coordinator } = this.#dependencies;
    const log = keys.log(repositoryId);
    const options = { rangeEnd: prefixEnd(log), limit: 1, keysOnly: true };
    const [oldest, head] = await Promise.all([
      coordinator.range(log, options),
      coordinator.get(keys.head(repositoryId)),
    ]);
    const [entry] = oldest.entries;
    if (entry === undefined || head === undefined) return 0;
    return Math.max(0, decodeHead(head).generation - Number(entry.key.slice(log.length)) + 1);
  }

  /** Read after the entries: an outbox record is put together with its entry, and never again. */
  async #openPushes(repositoryId: string): Promise<ReadonlySet<string>> {
    const outbox = keys.outbox(repositoryId, '');
    const open = new Set<string>();
    for await (const { key } of scan(this.#dependencies.coordinator, outbox, { keysOnly: true })) {
      open.add(key.slice(outbox.length));
    }
    return open;
  }
}
