import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Coordinator } from '../contract/coordinator.js';
import type { Clock, Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { PushPipeline } from '../contract/pipeline.js';
import type { SerialQueue } from '../local/serial-queue.js';
import type { AccessRecords } from './access-records.js';
import type { RepositoryPaths } from './repository-paths.js';

const changeSchema = z.union([
  z.strictObject({ from: z.string(), trash: z.string() }),
  z.strictObject({ from: z.string(), to: z.string() }),
]);

/** A repository that leaves its name: for a directory of our `trash`, or for another name. */
export type NameChange = z.infer<typeof changeSchema>;

export interface NameChangesOptions {
  readonly paths: RepositoryPaths;
  readonly access: AccessRecords;
  readonly coordinator: Coordinator;
  readonly pipeline: Pick<
    PushPipeline,
    'repositoryGone' | 'repositoryRenaming' | 'repositoryRenamed'
  >;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In which all changes of names come one after the other. */
  readonly queue: SerialQueue;
}

/** Changes read at a time, at a start. There are no more than failed, or were cut short. */
const pageSize = 100;
const firstRetryMs = 1_000;
const lastRetryMs = 60_000;

/**
 * What is kept about a repository elsewhere (grants, rules, deploy keys, quotas) is kept by its path here, and has to
 * follow the directory. A change is noted in the coordinator before the directory moves, and settled afterwards: at
 * once, else in the background, else at the next start. So that nothing of a repository applies to another one, a name
 * is cleared before something new takes it, whoever removed what was there.
 */
export class NameChanges {
  readonly #options: NameChangesOptions;
  /** Those that could not be settled yet, by the name that is left. */
  readonly #pending = new Map<string, NameChange>();
  readonly #closing = new AbortController();
  #retrying: Promise<void> | undefined;

  constructor(options: NameChangesOptions) {
    this.#options = options;
  }

  /** Settles what an earlier process has left; what cannot be settled now is tried again in the background. */
  async resume(): Promise<void> {
    const { coordinator } = this.#options;
    const rangeEnd = prefixEnd(keys.nameChanges);
    let from: string = keys.nameChanges;
    for (;;) {
      const page = await coordinator.range(from, { rangeEnd, limit: pageSize });
      for (const { key, value } of page.entries) await this.settle(decode(key, value));
      const last = page.entries.at(-1);
      if (!page.more || last === undefined) return;
      from = `${last.key}\0`;
    }
  }

  /**
   * To be called before something takes the name: afterwards nothing is kept about it. Throws when that cannot be had;
   * the name must not be taken then.
   */
  async clear(name: string): Promise<void> {
    await this.catchUp(name);
    await this.#forget(name);
  }

  /** To be called before the next change of the name. Throws when an earlier one cannot be settled. */
  async catchUp(name: string): Promise<void> {
    for (const change of this.#pending.values()) {
      if (change.from === name || ('to' in change && change.to === name))
        await this.#settle(change);
    }
  }

  /** Durably, before the directory moves. */
  async note(change: NameChange): Promise<void> {
    await this.#options.coordinator.transaction({
      compares: [],
      success: [
        {
          type: 'put',
          key: keys.nameChange(change.from),
          value: Buffer.from(JSON.stringify(change)),
        },
      ],
      failure: [],
    });
    // What protects it does so from the first push under the new name.
    if ('to' in change) await this.#options.pipeline.repositoryRenaming(change);
  }

  /** After the directory moved, or did not. False: not yet, and it is tried again in the background. Never throws. */
  async settle(change: NameChange): Promise<boolean> {
    try {
      await this.#settle(change);
      return true;
    } catch (error) {
      this.#options.logger.warn(
        { component: 'registry', repo: change.from, err: error },
        'what is kept about a repository that was deleted or renamed follows later',
      );
      this.#pending.set(change.from, change);
      this.#retrying ??= this.#retry();
      return false;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort('closed');
    await this.#retrying;
  }

  async #settle(change: NameChange): Promise<void> {
    const { coordinator, pipeline } = this.#options;
    const { from } = change;
    if (await this.#happened(change)) {
      if ('to' in change) await pipeline.repositoryRenamed(change);
      await this.#forget(from);
    } else if ('to' in change) {
      await this.#forget(change.to);
    }
    await coordinator.transaction({
      compares: [],
      success: [{ type: 'delete', key: keys.nameChange(from) }],
      failure: [],
    });
    this.#pending.delete(from);
  }

  async #happened(change: NameChange): Promise<boolean> {
    const { paths } = this.#options;
    if ((await paths.find(change.from)) === undefined) return true;
    // Other tools may have put another one in its place.
    if ('to' in change) return (await paths.find(change.to)) !== undefined;
    return lstat(join(await paths.ownDirectory('trash'), change.trash)).then(
      () => true,
      () => false,
    );
  }

  async #forget(name: string): Promise<void> {
    const { access, pipeline } = this.#options;
    await access.delete(name);
    await pipeline.repositoryGone({ id: name, name });
  }

  async #retry(): Promise<void> {
    const { clock, queue } = this.#options;
    const { signal } = this.#closing;
    for (
      let waitMs = firstRetryMs;
      this.#pending.size > 0;
      waitMs = Math.min(2 * waitMs, lastRetryMs)
    ) {
      await clock.sleep(waitMs, signal);
      if (signal.aborted) break;
      await queue.run(async () => {
        for (const change of this.#pending.values()) await this.settle(change);
      });
    }
    this.#retrying = undefined;
  }
}

function decode(key: string, value: Uint8Array): NameChange {
  try {
    return changeSchema.parse(JSON.parse(Buffer.from(value).toString('utf8')));
  } catch (cause) {
    throw new QuorateError('data-corrupt', `the coordinator's record ${key} is damaged`, { cause });
  }
}
