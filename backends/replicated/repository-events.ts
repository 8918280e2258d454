import type { Coordinator, Operation } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { keys, paddedGeneration, prefixEnd } from '../contract/keys.js';
import type { PushPipeline, RepositoryChange, RepositoryEvent } from '../contract/pipeline.js';
import { isSettingKey } from '../contract/settings.js';
import { decodeRepositoryEvent, encodeRecord, type RepositoryRecord } from './records.js';

export interface RepositoryEventsDependencies {
  readonly coordinator: Coordinator;
  readonly pipeline: Pick<PushPipeline, 'repositoryChanged'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Some hundred bytes each; settings can make one larger. */
const pageSize = 50;
/** Pauses before the pipeline, or the coordinator, is tried again. */
const firstRetryMs = 500;
const lastRetryMs = 60_000;

/** To be part of the transaction that makes the change. */
export function putRepositoryEvent(event: RepositoryEvent): Operation {
  const { atMs, repositoryId, epoch } = event;
  const key = keys.repositoryEvent(paddedGeneration(Math.floor(atMs)), repositoryId, epoch);
  return { type: 'put', key, value: encodeRecord(event) };
}

/** What receivers of events may want to know; who has been granted what is not for them. */
export function changeBetween(
  old: RepositoryRecord,
  current: RepositoryRecord,
): RepositoryChange | undefined {
  const settings: Record<string, string | null> = {};
  for (const key of new Set([...Object.keys(old.settings), ...Object.keys(current.settings)])) {
    if (!isSettingKey(key)) continue;
    const value = current.settings[key];
    if (value !== old.settings[key]) settings[key] = value ?? null;
  }
  const isPublic = current.access.public === old.access.public ? undefined : current.access.public;
  if (isPublic === undefined && Object.keys(settings).length === 0) return undefined;
  return {
    action: 'changed',
    ...(isPublic === undefined ? {} : { public: isPublic }),
    ...(Object.keys(settings).length === 0 ? {} : { settings }),
  };
}

/**
 * Tells the pipeline of changes to repositories, at least once and in the order of time: those of this process, what
 * an earlier one left, and what another one leaves undone when it dies.
 */
export class RepositoryEvents {
  readonly #dependencies: RepositoryEventsDependencies;
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;
  #again = false;

  constructor(dependencies: RepositoryEventsDependencies) {
    this.#dependencies = dependencies;
  }

  /** There is something to tell, or may be. */
  notify(): void {
    if (this.#closing.signal.aborted) return;
    this.#again = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#again) this.notify();
    });
  }

  /** What was not told stays in the coordinator. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#again = false;
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, logger } = this.#dependencies;
    const { signal } = this.#closing;
    let pauseMs = firstRetryMs;
    while (this.#again && !signal.aborted) {
      this.#again = false;
      try {
        await this.#tellAll();
        pauseMs = firstRetryMs;
      } catch (error) {
        logger.warn({ component: 'repository-events', err: error }, 'events are put off');
        this.#again = true;
        await clock.sleep(pauseMs, signal);
        pauseMs = Math.min(2 * pauseMs, lastRetryMs);
      }
    }
    if (signal.aborted) this.#again = false;
  }

  async #tellAll(): Promise<void> {
    const { coordinator, pipeline, logger } = this.#dependencies;
    let from: string = keys.repositoryEvents;
    for (;;) {
      const { entries, more } = await coordinator.range(from, {
        rangeEnd: prefixEnd(keys.repositoryEvents),
        limit: pageSize,
      });
      for (const entry of entries) {
        if (this.#closing.signal.aborted) return;
        let event: RepositoryEvent | undefined;
        try {
          event = decodeRepositoryEvent(entry);
        } catch (error) {
          // Waiting for what can never be told would keep all others from being told.
          logger.error({ component: 'repository-events', err: error }, 'an event is lost');
        }
        if (event !== undefined) await pipeline.repositoryChanged(event);
        await coordinator.transaction({
          compares: [],
          success: [{ type: 'delete', key: entry.key }],
          failure: [],
        });
        from = `${entry.key}\0`;
      }
      if (!more) return;
    }
  }
}
