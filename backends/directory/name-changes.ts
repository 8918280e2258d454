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
import type { MadeDirectories } from './made-directories.js';
import type { FoundRepository, RepositoryPaths } from './repository-paths.js';

/** Which directory it is about (`Repository.directory`); unknown of what an earlier version of Quorate noted. */
const directory = z.string().optional();
const changeSchema = z.union([
  z.object({ from: z.string(), trash: z.string(), directory }),
  z.object({ from: z.string(), to: z.string(), directory }),
  z.object({ made: z.string(), directory }),
]);

/**
 * A repository that leaves its name, for a directory of our `trash` or for another name; or one that is made and gets
 * its name.
 */
export type NameChange = z.infer<typeof changeSchema>;

type Leaving = Exclude<NameChange, { made: string }>;

export interface NameChangesOptions {
  readonly paths: RepositoryPaths;
  readonly access: AccessRecords;
  readonly made: MadeDirectories;
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
 * is cleared before something new takes it, whoever removed what was there; and what is there before its change is
 * settled is not served, unless it is the directory that the change is about.
 */
export class NameChanges {
  readonly #options: NameChangesOptions;
  /** That which is being made, and those that could not be settled yet, by where they are noted. */
  readonly #unsettled = new Map<string, NameChange>();
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

  /** Whether what is kept by the name of `found` may be another repository's. */
  isOfAnother({ name, directory: here }: Pick<FoundRepository, 'name' | 'directory'>): boolean {
    for (const change of this.#unsettled.values()) {
      if (namesOf(change).includes(name) && change.directory !== here) return true;
    }
    return false;
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
    for (const change of this.#unsettled.values()) {
      if (namesOf(change).includes(name)) await this.#settle(change);
    }
  }

  /** Durably, before the directory moves. To be settled, whether this fails or not. */
  async note(change: NameChange): Promise<void> {
    const key = placeOf(change);
    this.#unsettled.set(key, change);
    await this.#options.coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key, value: Buffer.from(JSON.stringify(change)) }],
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
        { component: 'registry', repo: namesOf(change)[0], err: error },
        'what is kept about a repository that was made, deleted or renamed follows later',
      );
      this.#unsettled.set(placeOf(change), change);
      this.#retrying ??= this.#retry();
      return false;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort('closed');
    await this.#retrying;
  }

  async #settle(change: NameChange): Promise<void> {
    const key = placeOf(change);
    if ('made' in change) {
      const here = await this.#options.paths.find(change.made);
      if (here === undefined || here.directory !== change.directory) await this.#leave(change.made);
    } else {
      await this.#settleLeaving(change);
    }
    await this.#options.coordinator.transaction({
      compares: [],
      success: [{ type: 'delete', key }],
      failure: [],
    });
    this.#unsettled.delete(key);
  }

  async #settleLeaving(change: Leaving): Promise<void> {
    const { hasLeft, hasArrived } = await this.#outcomeOf(change);
    if ('to' in change) {
      if (hasArrived) await this.#options.pipeline.repositoryRenamed(change);
      else await this.#leave(change.to);
    }
    if (hasLeft) await this.#leave(change.from);
  }

  async #outcomeOf(change: Leaving): Promise<{ hasLeft: boolean; hasArrived: boolean }> {
    const { paths } = this.#options;
    const here = await paths.find(change.from);
    const there = 'to' in change ? await paths.find(change.to) : undefined;
    if (change.directory === undefined) {
      const hasLeft = here === undefined || there !== undefined || (await this.#isInTrash(change));
      return { hasLeft, hasArrived: hasLeft };
    }
    return {
      hasLeft: here?.directory !== change.directory,
      // Other tools may have put another directory in its place: it has the name all the same.
      hasArrived:
        there !== undefined && (there.directory === change.directory || here === undefined),
    };
  }

  async #isInTrash(change: Leaving): Promise<boolean> {
    if (!('trash' in change)) return false;
    return lstat(join(await this.#options.paths.ownDirectory('trash'), change.trash)).then(
      () => true,
      () => false,
    );
  }

  /** The name is not, or no longer, that of the repository in question. */
  async #leave(name: string): Promise<void> {
    await this.#forget(name);
    // Tidiness: what could not be done does not undo what was.
    await this.#options.made.removeEmptyAbove(name).catch(() => {});
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
      this.#unsettled.size > 0;
      waitMs = Math.min(2 * waitMs, lastRetryMs)
    ) {
      await clock.sleep(waitMs, signal);
      if (signal.aborted) break;
      await queue.run(async () => {
        for (const change of this.#unsettled.values()) await this.settle(change);
      });
    }
    this.#retrying = undefined;
  }
}

function namesOf(change: NameChange): readonly string[] {
  if ('made' in change) return [change.made];
  return 'to' in change ? [change.from, change.to] : [change.from];
}

function placeOf(change: NameChange): string {
  return keys.nameChange('made' in change ? change.made : change.from);
}

function decode(key: string, value: Uint8Array): NameChange {
  try {
    return changeSchema.parse(JSON.parse(Buffer.from(value).toString('utf8')));
  } catch (cause) {
    throw new QuorateError('data-corrupt', `the coordinator's record ${key} is damaged`, { cause });
  }
}
