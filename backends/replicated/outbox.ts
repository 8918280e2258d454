import type { Clock, Logger, Meter } from '../contract/environment.js';
import type {
  Coordinator,
  KeyValue,
  Operation,
  TransactionResult,
} from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { PushPipeline } from '../contract/pipeline.js';
import { decodeLogEntry, decodeOutbox, scan } from './records.js';

export interface OutboxDependencies {
  readonly coordinator: Coordinator;
  readonly pipeline: PushPipeline;
  /** Resolves when every voter and learner of a repository has durably applied this generation. */
  readonly applyEverywhere: (repositoryId: string, generation: number) => Promise<void>;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly logger: Logger;
}

interface Item {
  readonly repositoryId: string;
  readonly pushId: string;
}

/** Two reads and two deletes per item: 40 items stay below the 128 operations of a transaction. */
const batchSize = 40;
/** What is beyond is found by the scan that follows an overflow. */
const maxItems = 10_000;
/** Pauses before what failed, or waits for a voter to apply it, is looked at again. */
const firstRetryMs = 500;
const lastRetryMs = 60_000;

/**
 * Does what follows a commit, at least once: the post-receive stage, then trimming of the log. Fed by commits of this
 * process and, at start, by what an earlier one left. Never in a push's way, and no repository in another's.
 */
export class Outbox {
  readonly #dependencies: OutboxDependencies;
  readonly #pending = new Map<string, Item>();
  /** Looked at again after a pause: its repository, or the coordinator, is in trouble. */
  readonly #postponed = new Map<string, Item>();
  #overflowed = false;
  #working: Promise<void> | undefined;
  #retrying: Promise<void> | undefined;
  readonly #closing = new AbortController();

  constructor(dependencies: OutboxDependencies) {
    this.#dependencies = dependencies;
    dependencies.meter.gauge('queue_depth', { queue: 'outbox' }, () => this.#length);
  }

  get #length(): number {
    return this.#pending.size + this.#postponed.size;
  }

  notify(repositoryId: string, pushId: string): void {
    if (this.#closing.signal.aborted) return;
    const item = { repositoryId, pushId };
    if (this.#postponed.has(nameOf(item))) return;
    if (this.#length >= maxItems) this.#overflowed = true;
    else this.#pending.set(nameOf(item), item);
    this.#begin();
  }

  /** Takes up everything that is in the coordinator. */
  async resume(): Promise<void> {
    const { coordinator } = this.#dependencies;
    for await (const { key } of scan(coordinator, keys.outboxes, { keysOnly: true })) {
      const [repositoryId = '', pushId = ''] = key.slice(keys.outboxes.length).split('/', 2);
      this.notify(repositoryId, pushId);
    }
  }

  /** Finishes what is at hand; what stays is in the coordinator and taken up at the next start. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#retrying;
    await this.#working;
  }

  #begin(): void {
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
      // One may have come after the last look.
      if (this.#pending.size > 0) this.#begin();
    });
  }

  async #work(): Promise<void> {
    while (this.#pending.size > 0) {
      const batch = [...this.#pending.values()].slice(0, batchSize);
      for (const item of batch) this.#pending.delete(nameOf(item));
      try {
        await this.#process(batch);
      } catch (error) {
        for (const item of batch) this.#postpone(item, error);
      }
    }
    if (this.#overflowed && this.#length < maxItems / 2) {
      this.#overflowed = false;
      await this.resume().catch(() => {
        this.#overflowed = true;
      });
    }
  }

  #postpone(item: Item, error: unknown): void {
    this.#dependencies.logger.warn(
      { component: 'outbox', repo: item.repositoryId, push_id: item.pushId, err: error },
      'work after a commit is put off',
    );
    this.#postponed.set(nameOf(item), item);
    this.#beginRetrying();
  }

  #beginRetrying(): void {
    if (this.#closing.signal.aborted) return;
    this.#retrying ??= this.#retry().finally(() => {
      this.#retrying = undefined;
      if (this.#postponed.size > 0) this.#beginRetrying();
    });
  }

  async #retry(): Promise<void> {
    const { signal } = this.#closing;
    let pauseMs = firstRetryMs;
    while (this.#postponed.size > 0) {
      await this.#dependencies.clock.sleep(pauseMs, signal);
      if (signal.aborted) return;
      pauseMs = Math.min(2 * pauseMs, lastRetryMs);
      for (const [name, item] of this.#postponed) this.#pending.set(name, item);
      this.#postponed.clear();
      this.#begin();
      await this.#working;
    }
  }

  async #process(batch: readonly Item[]): Promise<void> {
    const generations = await this.#read(
      batch.map(({ repositoryId, pushId }) => keys.outbox(repositoryId, pushId)),
    );
    const open = batch.flatMap((item, index) => {
      const kv = generations[index];
      return kv === undefined ? [] : [{ ...item, generation: decodeOutbox(kv).generation }];
    });
    const entries = await this.#read(
      open.map(({ repositoryId, generation }) => keys.logEntry(repositoryId, generation)),
    );
    const deletes: Operation[] = [];
    for (const [index, item] of open.entries()) {
      try {
        deletes.push(...(await this.#finish(item, entries[index])));
      } catch (error) {
        this.#postpone(item, error);
      }
    }
    if (deletes.length > 0) {
      const { coordinator } = this.#dependencies;
      await coordinator.transaction({ compares: [], success: deletes, failure: [] });
    }
  }

  /** Returns what is to be deleted. Throws when a voter has not applied the entry, or when a stage failed. */
  async #finish(
    { repositoryId, pushId, generation }: Item & { readonly generation: number },
    entry: KeyValue | undefined,
  ): Promise<readonly Operation[]> {
    const done: Operation = { type: 'delete', key: keys.outbox(repositoryId, pushId) };
    if (entry === undefined) return [done];
    const { applyEverywhere, pipeline } = this.#dependencies;
    // An entry is the only way to the objects of a push for whoever has not applied it.
    await applyEverywhere(repositoryId, generation);
    await pipeline.postReceive({ repositoryId, entry: decodeLogEntry(entry) });
    return [{ type: 'delete', key: keys.logEntry(repositoryId, generation) }, done];
  }

  async #read(wanted: readonly string[]): Promise<readonly (KeyValue | undefined)[]> {
    if (wanted.length === 0) return [];
    const { results }: TransactionResult = await this.#dependencies.coordinator.transaction({
      compares: [],
      success: wanted.map((key) => ({ type: 'get', key })),
      failure: [],
    });
    return results.map((result) => (result.type === 'get' ? result.entries[0] : undefined));
  }
}

function nameOf({ repositoryId, pushId }: Item): string {
  return `${repositoryId} ${pushId}`;
}
