import type { Clock, Logger, Meter } from '../contract/environment.js';
import type {
  Compare,
  Coordinator,
  KeyValue,
  Operation,
  TransactionResult,
} from '../contract/coordinator.js';
import type { HookEnd, HookRun } from '../contract/hook.js';
import { keys } from '../contract/keys.js';
import type { RefCommand } from '../contract/objects.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { LogEntry } from '../contract/repository.js';
import type { FreshCommit } from './commit.js';
import type { PushTrace } from './push-trace.js';
import { decodeLogEntry, decodeOutbox, encodeRecord, type OutboxRecord, scan } from './records.js';

export interface OutboxDependencies {
  readonly coordinator: Coordinator;
  readonly pipeline: PushPipeline;
  /** Makes the voters of a repository apply this generation. Resolves with the first that has; rejects when none could. */
  readonly applyEverywhere: (
    repositoryId: string,
    generation: number,
    /** What is known of a commit that was made here just now, and where its life is written down. */
    known: Pick<Item, 'fresh' | 'trace'>,
  ) => Promise<Applied>;
  /** Runs a hook where the push is applied. */
  readonly runHook: (
    where: { readonly repositoryId: string; readonly pushId: string; readonly storeId: string },
    run: HookRun,
  ) => Promise<HookEnd>;
  /** Entries whose stages are over, but which some voter has not applied yet. */
  readonly trimLater: (repositoryId: string) => void;
  /** The name of this front-end in the coordinator. */
  readonly frontEnd: () => Promise<string>;
  readonly clock: Clock;
  readonly meter: Meter;
  readonly logger: Logger;
}

/** How far an entry has come among the voters. */
export interface Applied {
  /** A store that has it. */
  readonly storeId: string;
  /** Whether every voter came to have it, so that the entry may go. Never rejects. */
  readonly everywhere: Promise<boolean>;
}

interface Item {
  readonly repositoryId: string;
  readonly pushId: string;
  /** Those that the log entry has no room for. */
  readonly updates?: readonly RefCommand[];
  /** Of a commit that was made here just now: then nothing has to be read. */
  readonly fresh?: FreshCommit;
  /** Of one that was made by this process. */
  readonly trace?: PushTrace;
  /** How often it was put off; absent: never. */
  readonly tries?: number;
  /** Its stage is over, in this process. */
  readonly told?: true;
}

/** Looked at again when that is due, on the monotonic clock. */
interface Postponed {
  readonly item: Item;
  readonly dueMs: number;
}

/** A push of which nothing is left to be done but to delete what the coordinator keeps of it. */
interface Done {
  readonly item: Item;
  readonly deletes: readonly Operation[];
  /** Its entry stays: some voter has not applied it yet. */
  readonly lags: boolean;
}

interface Open {
  readonly item: Item;
  readonly generation: number;
  readonly entry: LogEntry | undefined;
}

/** A pusher who waits for what the post-receive stage has to say. */
export interface Attendance {
  /** Resolves when the stage is over, at the latest after `ms`. */
  over(ms: number): Promise<void>;
  /** Nothing is told from here on. */
  leave(): void;
}

interface Attendant {
  readonly progress: (text: Uint8Array) => void;
  readonly over: AbortController;
}

/** Two reads and two deletes per item: 40 items stay below the 128 operations of a transaction. */
const batchSize = 40;
/** Updates of an entry that is kept in memory instead of being read again: some kilobytes. */
const maxFreshUpdates = 8;
/** How long deletions wait for others: one transaction is a sync of the disk on every member. */
const gatherMs = 200;
/** Of the 128 operations of a transaction; each push has two. */
const maxDeletes = 120;
/** What is beyond is found by the scan that follows an overflow. */
const maxItems = 10_000;
/** A hook may take half a minute; so many batches may have one before others wait for it. */
const maxBatches = 8;
/**
 * How long an entry waits for all voters to have it: for one whose disk hangs it stays, and is trimmed later. As long others
 * wait for one that no voter has.
 */
const everywhereMs = 10_000;
/** Pauses before what failed is tried again, each twice as long as the one before. */
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
  readonly #postponed = new Map<string, Postponed>();
  readonly #working = new Set<string>();
  /** Of those being worked on: no voter has applied them, or said that it cannot. They are nobody's batch any more. */
  #unapplied = 0;
  readonly #done: Done[] = [];
  #forgetting: Promise<void> | undefined;
  readonly #attendants = new Map<string, Attendant>();
  #overflowed = false;
  readonly #running = new Set<Promise<void>>();
  /** Of pushes whose stages are over, and which some voter may still be applying. */
  readonly #settling = new Set<Promise<void>>();
  #retrying: Promise<void> | undefined;
  readonly #closing = new AbortController();

  constructor(dependencies: OutboxDependencies) {
    this.#dependencies = dependencies;
    dependencies.meter.gauge('queue_depth', { queue: 'outbox' }, () => this.#length);
  }

  get #length(): number {
    return this.#pending.size + this.#postponed.size + this.#unapplied;
  }

  notify(repositoryId: string, pushId: string, commit?: FreshCommit): void {
    if (this.#closing.signal.aborted) return;
    const isSmall = (commit?.entry.updates.length ?? 0) <= maxFreshUpdates;
    const item: Item = {
      repositoryId,
      pushId,
      ...(commit?.updates === undefined ? {} : { updates: commit.updates }),
      ...(commit === undefined || !isSmall ? {} : { fresh: commit }),
      ...(commit === undefined ? {} : { trace: commit.trace }),
    };
    if (this.#postponed.has(nameOf(item))) return;
    // What was told of it when it was committed is more than the coordinator has.
    if (commit === undefined && this.#pending.has(nameOf(item))) return;
    if (this.#length >= maxItems) this.#overflowed = true;
    else this.#pending.set(nameOf(item), item);
    this.#begin();
  }

  /** To be called before the push commits, and left afterwards. */
  attend(pushId: string, progress: (text: Uint8Array) => void): Attendance {
    const over = new AbortController();
    this.#attendants.set(pushId, { progress, over });
    return {
      over: (ms) => this.#dependencies.clock.sleep(ms, over.signal),
      leave: () => void this.#attendants.delete(pushId),
    };
  }

  /**
   * Takes up what is in the coordinator and is ours, or was a front-end's that is gone. An item that is being worked
   * on is not taken up twice.
   */
  async resume(): Promise<void> {
    const { coordinator, frontEnd } = this.#dependencies;
    const own = await frontEnd();
    const alive = new Map([[own, true]]);
    for await (const entry of scan(coordinator, keys.outboxes)) {
      const [repositoryId = '', pushId = ''] = entry.key.slice(keys.outboxes.length).split('/', 2);
      const understood = this.#understood(entry);
      if (understood === undefined) continue;
      const { frontEnd: owner = '', ...record } = understood;
      if (this.#working.has(nameOf({ repositoryId, pushId }))) continue;
      // Whoever pushes it hears of its commit first, and, should the answer be lost, looks for this record.
      if (owner === own && this.#attendants.has(pushId)) continue;
      if (!alive.has(owner)) {
        const found = owner === '' ? undefined : await coordinator.get(keys.frontEnd(owner));
        alive.set(owner, found !== undefined);
      }
      if (owner !== own) {
        if (alive.get(owner) === true) continue;
        const { succeeded } = await coordinator.transaction({
          compares: [
            { key: entry.key, target: 'modRevision', op: '=', operand: entry.modRevision },
            ...(owner === '' ? [] : [absent(keys.frontEnd(owner))]),
          ],
          success: [
            { type: 'put', key: entry.key, value: encodeRecord({ ...record, frontEnd: own }) },
          ],
          failure: [],
        });
        if (!succeeded) continue;
      }
      this.notify(repositoryId, pushId);
    }
  }

  /** Undefined for what is damaged, or of a later version: it stays, and nothing else waits for it. */
  #understood(kv: KeyValue): OutboxRecord | undefined {
    try {
      return decodeOutbox(kv);
    } catch (error) {
      this.#dependencies.logger.error({ component: 'outbox', err: error }, 'a record stays');
      return undefined;
    }
  }

  /** Finishes what is at hand; what stays is in the coordinator and taken up at the next start. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#retrying;
    await this.#idle();
  }

  /** Starts what may be started. */
  #begin(): void {
    while (this.#pending.size > 0 && this.#running.size < maxBatches) {
      const batch = [...this.#pending.values()].slice(0, batchSize);
      for (const item of batch) {
        this.#pending.delete(nameOf(item));
        this.#working.add(nameOf(item));
      }
      const run = this.#process(batch)
        .catch((error: unknown) => {
          for (const item of batch) this.#postpone(item, error);
        })
        .then(() => this.#findOverflowed())
        .finally(() => {
          this.#running.delete(run);
          this.#begin();
        });
      this.#running.add(run);
    }
  }

  async #idle(): Promise<void> {
    while (this.#running.size + this.#settling.size > 0 || this.#forgetting !== undefined) {
      await Promise.all([...this.#running, ...this.#settling, this.#forgetting]);
    }
  }

  async #findOverflowed(): Promise<void> {
    if (!this.#overflowed || this.#length >= maxItems / 2) return;
    this.#overflowed = false;
    await this.resume().catch(() => {
      this.#overflowed = true;
    });
  }

  #postpone({ fresh: _old, tries = 0, ...item }: Item, error: unknown): void {
    const { clock, logger } = this.#dependencies;
    this.#working.delete(nameOf(item));
    logger.warn(
      { component: 'outbox', repo: item.repositoryId, push_id: item.pushId, err: error },
      'work after a commit is put off',
    );
    this.#attendants.get(item.pushId)?.over.abort();
    const dueMs = clock.monotonicMs() + Math.min(firstRetryMs * 2 ** tries, lastRetryMs);
    this.#postponed.set(nameOf(item), { item: { ...item, tries: tries + 1 }, dueMs });
    this.#beginRetrying();
  }

  #beginRetrying(): void {
    if (this.#closing.signal.aborted) return;
    this.#retrying ??= this.#retry().finally(() => {
      this.#retrying = undefined;
      if (this.#postponed.size > 0) this.#beginRetrying();
    });
  }

  /** Each has its own pauses, and waits for nobody's work: a hook of another may run for long. */
  async #retry(): Promise<void> {
    const { clock } = this.#dependencies;
    const { signal } = this.#closing;
    while (this.#postponed.size > 0) {
      await clock.sleep(firstRetryMs, signal);
      if (signal.aborted) return;
      const nowMs = clock.monotonicMs();
      for (const [name, { item, dueMs }] of this.#postponed) {
        if (dueMs > nowMs) continue;
        this.#postponed.delete(name);
        this.#pending.set(name, item);
      }
      this.#begin();
    }
  }

  async #process(batch: readonly Item[]): Promise<void> {
    await Promise.all(
      (await this.#open(batch)).map(async ({ item, generation, entry }) => {
        try {
          const applied = await this.#finish(item, generation, entry);
          if (applied === 'late') return;
          const settling = this.#settle(item, generation, applied).finally(() =>
            this.#settling.delete(settling),
          );
          this.#settling.add(settling);
        } catch (error) {
          this.#postpone(item, error);
        }
      }),
    );
  }

  /** What is still to be done, with the log entries as far as they are there. */
  async #open(batch: readonly Item[]): Promise<readonly Open[]> {
    const { trimLater } = this.#dependencies;
    const fresh = batch.flatMap((item) => {
      const entry = item.fresh?.entry;
      return entry === undefined ? [] : [{ item, entry, generation: entry.generation }];
    });
    const unread = batch.filter((item) => item.fresh === undefined);
    const records = await this.#read(
      unread.map(({ repositoryId, pushId }) => keys.outbox(repositoryId, pushId)),
    );
    const open = unread.flatMap((item, index) => {
      const kv = records[index];
      if (kv !== undefined) return this.#unlessDamaged(item, () => decodeOutbox(kv).generation);
      this.#working.delete(nameOf(item));
      // Deleted by a transaction whose answer was lost, perhaps, and its entry may have had to stay.
      if (item.tries !== undefined) trimLater(item.repositoryId);
      return [];
    });
    const entries = await this.#read(
      open.map(({ item, found }) => keys.logEntry(item.repositoryId, found)),
    );
    const read = open.flatMap(({ item, found: generation }, index): Open[] => {
      const kv = entries[index];
      if (kv === undefined) return [{ item, generation, entry: undefined }];
      const entry = this.#unlessDamaged(item, () => decodeLogEntry(kv));
      return entry.map(({ found }) => ({ item, generation, entry: found }));
    });
    return [...fresh, ...read];
  }

  /** Puts an item off whose record cannot be read, and no other. */
  #unlessDamaged<T>(item: Item, read: () => T): readonly { item: Item; found: T }[] {
    try {
      return [{ item, found: read() }];
    } catch (error) {
      this.#postpone(item, error);
      return [];
    }
  }

  /**
   * Undefined: there is no entry any more; `late`: it is begun again when a voter has applied it. Throws when none could,
   * or when a stage failed.
   */
  async #finish(
    item: Item,
    generation: number,
    entry: LogEntry | undefined,
  ): Promise<Applied | 'late' | undefined> {
    if (entry === undefined) return undefined;
    // An entry is the only way to the objects of a push for whoever has prepared it and not applied it.
    const applied = await this.#apply(item, generation);
    if (applied === 'late') return applied;
    const { repositoryId, pushId, updates, ...known } = item;
    // Its records could not be deleted.
    if (known.told === true) return applied;
    const { storeId } = applied;
    await this.#dependencies.pipeline.postReceive({
      repositoryId,
      entry: updates === undefined ? entry : { ...entry, updates },
      nobodyToTell: known.fresh?.nobodyToTell ?? false,
      runHook: (run) => this.#dependencies.runHook({ repositoryId, pushId, storeId }, run),
      progress: (text) => this.#attendants.get(pushId)?.progress(text),
      signal: this.#closing.signal,
    });
    this.#attendants.get(pushId)?.over.abort();
    known.trace?.note('post-receive');
    return applied;
  }

  /** While the disks of all voters hang nobody else waits for them. */
  async #apply(item: Item, generation: number): Promise<Applied | 'late'> {
    const { applyEverywhere, clock } = this.#dependencies;
    const { repositoryId, pushId: _own, updates: _large, ...known } = item;
    const over = new AbortController();
    const late = clock.sleep(everywhereMs, over.signal).then(() => 'late' as const);
    const applying = applyEverywhere(repositoryId, generation, known);
    const applied = await Promise.race([applying, late]).finally(() => over.abort('over'));
    if (applied === 'late') {
      this.#unapplied += 1;
      void applying
        .finally(() => {
          this.#unapplied -= 1;
        })
        .then(
          () => this.#beginAgain(item),
          (error: unknown) => this.#postpone(item, error),
        );
    }
    return applied;
  }

  #beginAgain({ fresh: _old, ...item }: Item): void {
    this.#working.delete(nameOf(item));
    if (this.#closing.signal.aborted) return;
    this.#pending.set(nameOf(item), item);
    this.#begin();
  }

  /** Has deleted what nobody needs any more: the entry, too, if every voter has it in time. Never rejects. */
  async #settle(item: Item, generation: number, applied: Applied | undefined): Promise<void> {
    const { repositoryId, pushId } = item;
    const done: Operation = { type: 'delete', key: keys.outbox(repositoryId, pushId) };
    if (applied === undefined) return this.#forget({ item, deletes: [done], lags: false });
    const over = new AbortController();
    const late = this.#dependencies.clock.sleep(everywhereMs, over.signal).then(() => false);
    const everywhere = Promise.race([applied.everywhere, late]).finally(() => over.abort('over'));
    if (!(await everywhere)) return this.#forget({ item, deletes: [done], lags: true });
    const trimmed: Operation = { type: 'delete', key: keys.logEntry(repositoryId, generation) };
    this.#forget({ item, deletes: [trimmed, done], lags: false });
  }

  #forget(done: Done): void {
    this.#done.push(done);
    this.#forgetting ??= this.#forgetAll().finally(() => {
      this.#forgetting = undefined;
    });
  }

  /** Deletes what is done, of many pushes in one transaction. */
  async #forgetAll(): Promise<void> {
    const { clock, coordinator, trimLater } = this.#dependencies;
    await clock.sleep(gatherMs, this.#closing.signal);
    while (this.#done.length > 0) {
      const batch = this.#done.splice(0, maxDeletes / 2);
      const success = batch.flatMap(({ deletes }) => deletes);
      try {
        await coordinator.transaction({ compares: [], success, failure: [] });
        for (const { item, lags } of batch) {
          this.#working.delete(nameOf(item));
          // Not before: entries with an outbox record are left to whoever empties the outbox.
          if (lags) trimLater(item.repositoryId);
        }
      } catch (error) {
        for (const { item } of batch) this.#postpone({ ...item, told: true }, error);
      }
    }
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

const absent = (key: string): Compare => ({
  key,
  target: 'createRevision',
  op: '=',
  operand: 0,
});

function nameOf({ repositoryId, pushId }: Item): string {
  return `${repositoryId} ${pushId}`;
}
