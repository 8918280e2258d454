import type { Clock, Logger, Meter } from '../contract/environment.js';
import type {
  Coordinator,
  KeyValue,
  Operation,
  TransactionResult,
} from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { PushPipeline } from '../contract/pipeline.js';
import { decodeLogEntry, decodeOutbox, scan } from './records.js';

export interface OutboxDependencies {
  readonly coordinator: Coordinator;
  readonly pipeline: PushPipeline;
  /** The generation that every voter and learner of a repository has durably applied. */
  readonly appliedEverywhere: (repositoryId: string) => Promise<number>;
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
const maxPending = 10_000;
const maxTries = 5;

/**
 * Does what follows a commit, at least once: the post-receive stage, then trimming of the log. Fed by commits of this
 * process and, at start, by what an earlier one left. Never in a push's way.
 */
export class Outbox {
  readonly #dependencies: OutboxDependencies;
  #pending: Item[] = [];
  #overflowed = false;
  #working: Promise<void> | undefined;
  readonly #closing = new AbortController();

  constructor(dependencies: OutboxDependencies) {
    this.#dependencies = dependencies;
    dependencies.meter.gauge('queue_depth', { queue: 'outbox' }, () => this.#pending.length);
  }

  notify(repositoryId: string, pushId: string): void {
    if (this.#closing.signal.aborted) return;
    if (this.#pending.length >= maxPending) this.#overflowed = true;
    else this.#pending.push({ repositoryId, pushId });
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  /** Takes up everything that is in the coordinator. */
  async resume(): Promise<void> {
    for await (const { key } of scan(
      this.#dependencies.coordinator,
      keys.outboxes,
      prefixEnd(keys.outboxes),
    )) {
      const [repositoryId = '', pushId = ''] = key.slice(keys.outboxes.length).split('/', 2);
      this.notify(repositoryId, pushId);
    }
  }

  /** Finishes what is at hand; what stays is in the coordinator and taken up at the next start. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#working;
  }

  async #work(): Promise<void> {
    let failures = 0;
    while (this.#pending.length > 0) {
      const batch = this.#pending.splice(0, batchSize);
      try {
        await this.#process(batch);
        failures = 0;
      } catch (error) {
        failures++;
        this.#dependencies.logger.error(
          { component: 'outbox', err: error, tries: failures },
          'work after a commit failed',
        );
        if (failures >= maxTries || this.#closing.signal.aborted) continue;
        this.#pending.unshift(...batch);
        await this.#dependencies.clock.sleep(200 * 2 ** failures, this.#closing.signal);
      }
      if (this.#pending.length === 0 && this.#overflowed) {
        this.#overflowed = false;
        await this.resume().catch(() => undefined);
      }
    }
  }

  async #process(batch: readonly Item[]): Promise<void> {
    const { coordinator, pipeline } = this.#dependencies;
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
    for (const [index, { repositoryId, pushId, generation }] of open.entries()) {
      const kv = entries[index];
      if (kv !== undefined) {
        await pipeline.postReceive({ repositoryId, entry: decodeLogEntry(kv) });
        // An entry is the only way to the objects of a push for whoever has not applied it.
        if ((await this.#dependencies.appliedEverywhere(repositoryId)) < generation) continue;
        deletes.push({ type: 'delete', key: keys.logEntry(repositoryId, generation) });
      }
      deletes.push({ type: 'delete', key: keys.outbox(repositoryId, pushId) });
    }
    if (deletes.length > 0) {
      await coordinator.transaction({ compares: [], success: deletes, failure: [] });
    }
  }

  async #read(wanted: readonly string[]): Promise<readonly (KeyValue | undefined)[]> {
    const { results }: TransactionResult = await this.#dependencies.coordinator.transaction({
      compares: [],
      success: wanted.map((key) => ({ type: 'get', key })),
      failure: [],
    });
    return results.map((result) => (result.type === 'get' ? result.entries[0] : undefined));
  }
}
