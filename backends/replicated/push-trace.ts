import { z } from 'zod';
import type { PushStep, PushStory } from '../contract/cluster.js';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import { encodeRecord, scan } from './records.js';

/** Stories that wait to be written; beyond, the oldest are forgotten: they are for people only. */
const maxWaiting = 2_000;
/** Put together in one transaction, and as many deleted: below the 128 operations that etcd takes. */
const batchSize = 50;
const writeEveryMs = 500;
/** A story that goes on is not written yet: each time it would be written whole. */
const quietMs = 500;
/** How long the life of a push can be looked up. */
const keptMs = 24 * 60 * 60_000;
/** Stories of this process that are kept, about a kilobyte each: a busy day may not fill the coordinator. */
const maxKept = 50_000;
/** Of others' stories, that nobody else may be there to forget. Reads them all, so seldom. */
const trimEveryMs = 60 * 60_000;

const schema = z.object({
  pushId: z.string(),
  repositoryId: z.string(),
  actor: z.string(),
  frontEnd: z.string(),
  steps: z.array(
    z.object({
      step: z.string(),
      atMs: z.number(),
      nodeId: z.string().exactOptional(),
      detail: z.string().exactOptional(),
    }),
  ),
});

/** The steps of one push, noted as they happen. */
export interface PushTrace {
  note(step: string, about?: { readonly nodeId?: string; readonly detail?: string }): void;
}

interface Waiting {
  readonly story: PushStory;
  readonly notedMs: number;
}

export const untraced: PushTrace = { note: () => undefined };

/**
 * Lives of pushes, for `quorate explain push`. Noted in memory and written behind the pushes' backs, some of them at a
 * time: a story that is lost with its process is no loss to any push.
 */
export class PushTraces {
  readonly #coordinator: Coordinator;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #frontEnd: string;
  readonly #maxKept: number;
  /** In the order of their last steps. */
  readonly #waiting = new Map<string, Waiting>();
  /** When each story that this process wrote was written last, the oldest first. */
  readonly #written = new Map<string, number>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;

  constructor(dependencies: {
    readonly coordinator: Coordinator;
    readonly clock: Clock;
    readonly logger: Logger;
    /** Name of this process. */
    readonly frontEnd: string;
    /** Stories that are kept at most; absent: as many as do no harm. */
    readonly maxKept?: number;
  }) {
    this.#maxKept = dependencies.maxKept ?? maxKept;
    this.#coordinator = dependencies.coordinator;
    this.#clock = dependencies.clock;
    this.#logger = dependencies.logger;
    this.#frontEnd = dependencies.frontEnd;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
    await this.#write(Number.POSITIVE_INFINITY).catch(() => undefined);
  }

  begin(about: Pick<PushStory, 'pushId' | 'repositoryId' | 'actor'>): PushTrace {
    const steps: PushStep[] = [];
    const story: PushStory = { ...about, frontEnd: this.#frontEnd, steps };
    return {
      note: (step, { nodeId, detail } = {}) => {
        steps.push({
          step,
          atMs: this.#clock.nowMs(),
          ...(nodeId === undefined ? {} : { nodeId }),
          ...(detail === undefined ? {} : { detail: detail.slice(0, 200) }),
        });
        this.#waiting.delete(about.pushId);
        this.#waiting.set(about.pushId, { story, notedMs: this.#clock.monotonicMs() });
        if (this.#waiting.size <= maxWaiting) return;
        const [oldest] = this.#waiting.keys();
        if (oldest !== undefined) this.#waiting.delete(oldest);
      },
    };
  }

  async find(pushId: string): Promise<PushStory | undefined> {
    const waiting = this.#waiting.get(pushId);
    if (waiting !== undefined) return waiting.story;
    const kv = await this.#coordinator.get(keys.trace(pushId));
    if (kv === undefined) return undefined;
    const parsed = schema.safeParse(JSON.parse(new TextDecoder().decode(kv.value)));
    return parsed.success ? parsed.data : undefined;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let trimmedMs = -Infinity;
    while (!signal.aborted) {
      await this.#clock.sleep(writeEveryMs, signal);
      try {
        await this.#write(this.#clock.monotonicMs() - quietMs);
        if (this.#clock.monotonicMs() - trimmedMs < trimEveryMs) continue;
        trimmedMs = this.#clock.monotonicMs();
        await this.#trim();
      } catch (error) {
        this.#logger.debug({ component: 'traces', err: error }, 'lives of pushes were not written');
      }
    }
  }

  /**
   * Stories without a step after `upToMs`. Old ones go in the transaction that new ones come with. A story waits until
   * it is written: it can be looked up at any time, and what failed is tried again.
   */
  async #write(upToMs: number): Promise<void> {
    for (;;) {
      const batch = this.#quiet(upToMs);
      if (batch.length === 0) return;
      for (const { story } of batch) this.#written.delete(story.pushId);
      const forgotten = this.#forget(batch.length);
      for (const { story } of batch) this.#written.set(story.pushId, this.#clock.nowMs());
      await this.#coordinator.transaction({
        compares: [],
        success: [
          ...batch.map(({ story }) => ({
            type: 'put' as const,
            key: keys.trace(story.pushId),
            value: encodeRecord(story),
          })),
          ...forgotten.map((pushId) => ({ type: 'delete' as const, key: keys.trace(pushId) })),
        ],
        failure: [],
      });
      for (const waiting of batch) {
        const { pushId } = waiting.story;
        // What was noted meanwhile is still to be written.
        if (this.#waiting.get(pushId) === waiting) this.#waiting.delete(pushId);
      }
    }
  }

  #quiet(upToMs: number): readonly Waiting[] {
    const quiet: Waiting[] = [];
    for (const waiting of this.#waiting.values()) {
      if (waiting.notedMs > upToMs || quiet.length === batchSize) break;
      quiet.push(waiting);
    }
    return quiet;
  }

  /** The oldest of this process that are too old, or too many with so many more. */
  #forget(coming: number): readonly string[] {
    const beforeMs = this.#clock.nowMs() - keptMs;
    const forgotten: string[] = [];
    for (const [pushId, atMs] of this.#written) {
      if (forgotten.length >= batchSize) break;
      if (atMs >= beforeMs && this.#written.size + coming <= this.#maxKept) break;
      this.#written.delete(pushId);
      forgotten.push(pushId);
    }
    return forgotten;
  }

  /** What is too old goes, whoever wrote it; what an earlier process of this name wrote counts as this one's. */
  async #trim(): Promise<void> {
    const beforeMs = this.#clock.nowMs() - keptMs;
    const own = new Map<string, number>();
    let old: string[] = [];
    const drop = async (): Promise<void> => {
      await this.#coordinator.transaction({
        compares: [],
        success: old.map((key) => ({ type: 'delete', key })),
        failure: [],
      });
      old = [];
    };
    for await (const { key, value } of scan(this.#coordinator, keys.traces)) {
      const parsed = schema.safeParse(JSON.parse(new TextDecoder().decode(value)));
      const lastMs = parsed.success ? (parsed.data.steps.at(-1)?.atMs ?? 0) : 0;
      if (lastMs < beforeMs) old.push(key);
      else if (parsed.data?.frontEnd === this.#frontEnd) own.set(parsed.data.pushId, lastMs);
      if (old.length >= batchSize) await drop();
    }
    if (old.length > 0) await drop();
    const oldestFirst = [...own, ...this.#written].sort(([, a], [, b]) => a - b);
    this.#written.clear();
    for (const [pushId, atMs] of oldestFirst) {
      this.#written.delete(pushId);
      this.#written.set(pushId, atMs);
    }
  }
}
