import type { Clock, Logger } from '../contract/environment.js';
import type { Coordinator, Operation } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { decodeHead, decodeLogEntry, scan } from './records.js';
import type { Progress } from './replicate.js';

export interface LogTrimDependencies {
  readonly coordinator: Coordinator;
  readonly appliedEverywhere: (repositoryId: string) => Promise<Progress>;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Lag {
  /** On the monotonic clock. */
  readonly sinceMs: number;
  /** That some voter may lack. None: all have applied the head, and entries are still to go. */
  generations: number;
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
  readonly #left = new Map<string, Lag>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;
  #finishing: Promise<void> | undefined;

  constructor(dependencies: LogTrimDependencies) {
    this.#dependencies = dependencies;
  }

  /** Repositories with pushes that some voter may lack: how many there are, and how far and how long the worst lag. */
  get lag(): { readonly repositories: number; readonly generations: number; readonly ms: number } {
    const nowMs = this.#dependencies.clock.monotonicMs();
    let [repositories, generations, ms] = [0, 0, 0];
    for (const one of this.#left.values()) {
      if (one.generations === 0) continue;
      repositories += 1;
      generations = Math.max(generations, one.generations);
      ms = Math.max(ms, nowMs - one.sinceMs);
    }
    return { repositories, generations, ms };
  }

  later(repositoryId: string): void {
    const known = this.#left.get(repositoryId);
    if (known === undefined || known.generations === 0) {
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

  /**
   * Looks once, in the background, at repositories whose log holds what others left, who may be gone. Where a voter is
   * still away, the next time is soon enough: of each outage one front-end tells already.
   */
  finish(repositoryIds: readonly string[]): void {
    this.#finishing ??= this.#finish(repositoryIds).finally(() => {
      this.#finishing = undefined;
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([this.#running, this.#finishing]);
  }

  async #finish(repositoryIds: readonly string[]): Promise<void> {
    const sinceMs = this.#dependencies.clock.monotonicMs();
    for (const repositoryId of repositoryIds) {
      if (this.#closing.signal.aborted) return;
      if (this.#left.has(repositoryId)) continue;
      await this.#tryToLook(repositoryId, { sinceMs, generations: 0 });
    }
  }

  async #run(): Promise<void> {
    const { clock } = this.#dependencies;
    const { signal } = this.#closing;
    while (this.#left.size > 0) {
      await clock.sleep(trimEveryMs, signal);
      if (signal.aborted) return;
      for (const [repositoryId, lag] of this.#left) {
        if (await this.#tryToLook(repositoryId, lag)) this.#left.delete(repositoryId);
      }
    }
  }

  /** Never rejects. */
  async #tryToLook(repositoryId: string, lag: Lag): Promise<boolean> {
    try {
      return await this.#look(repositoryId, lag);
    } catch (error) {
      this.#dependencies.logger.warn(
        { component: 'log', repo: repositoryId, err: error },
        'the push log was not trimmed yet',
      );
      return false;
    }
  }

  /** True when nothing is left to trim, or others will do it. What is lacking is known before anything is trimmed. */
  async #look(repositoryId: string, lag: Lag): Promise<boolean> {
    const { head, applied } = await this.#dependencies.appliedEverywhere(repositoryId);
    if (applied === undefined) {
      lag.generations = await this.#generationsIn(repositoryId);
      return false;
    }
    lag.generations = Math.max(0, head - applied);
    const isDone = await this.#trim(repositoryId, applied);
    // What came meanwhile waits for some voter, and was told of.
    return isDone && this.#left.get(repositoryId) === lag;
  }

  /** A page after the other, as far as every voter has applied them. True when nothing is left. */
  async #trim(repositoryId: string, applied: number): Promise<boolean> {
    const { coordinator } = this.#dependencies;
    const log = keys.log(repositoryId);
    for (let from = log; ;) {
      const page = await coordinator.range(from, { rangeEnd: prefixEnd(log), limit: batchSize });
      const due = page.entries
        .map(decodeLogEntry)
        .filter(({ generation }) => generation <= applied);
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
      const last = page.entries.at(-1);
      // What is in an outbox is trimmed by whoever empties that.
      if (due.length < page.entries.length) return false;
      if (!page.more || last === undefined) return true;
      from = `${last.key}\0`;
    }
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
