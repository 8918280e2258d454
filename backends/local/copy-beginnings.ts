import { QuorateError } from '../contract/errors.js';
import type { Head } from '../contract/objects.js';
import type { PeerSource, Replica, ReplicaState } from '../contract/replica.js';
import type { EmptyCopy } from './empty-copy.js';
import { SerialQueue } from './serial-queue.js';

export interface BeginningDependencies {
  readonly verify: Replica['verify'];
  /** Takes a copy out of the way, for people to look at; called within `apart`. */
  readonly setAside: (id: string) => Promise<void>;
  /** As `Replica.state`, also of a copy that was only begun. */
  readonly found: Replica['state'];
  /** Whether this store is to have a copy, and of what; see `LogReader.wantsCopy`. */
  readonly wanted: (id: string) => Promise<'new' | 'living' | undefined>;
  /** Makes the files of an empty copy. */
  readonly makeFiles: (id: string, copy: EmptyCopy) => Promise<void>;
  /** Removes what was never whole. */
  readonly discard: (id: string) => Promise<void>;
}

export interface Beginning {
  readonly atLeast: number;
  /** What is here is damaged, as somebody found out. */
  readonly fresh?: boolean;
  readonly source: PeerSource;
  readonly signal: AbortSignal;
}

/**
 * What comes before a copy is filled: a damaged one is set aside, and an empty one made, which counts for nothing and is
 * not read until it is filled. A request for it may come twice, and late, when the copy is whole again and counts: one
 * beginning at a time for each repository, and each looks for itself at what is there then.
 */
export class CopyBeginnings {
  readonly #dependencies: BeginningDependencies;
  readonly #queues = new Map<string, SerialQueue>();

  constructor(dependencies: BeginningDependencies) {
    this.#dependencies = dependencies;
  }

  /** As `Replica.create`. */
  create(id: string, options: Parameters<Replica['create']>[1]): Promise<void> {
    return this.ofNew(id, () => this.#dependencies.makeFiles(id, options));
  }

  /**
   * Runs what makes a copy of a repository that is being made, apart from what removes it. A request that arrives when
   * its sender has given up, and the copy was removed, makes nothing: who removes it has it removed from the repository's
   * record before. Nor does one that arrives when the repository lives: its first copy is old by then, and whole it
   * would look.
   */
  ofNew<T>(id: string, run: () => Promise<T>): Promise<T> {
    return this.apart(id, async () => {
      if ((await this.#refuseUnwanted(id)) === 'new') return run();
      throw new QuorateError('aborted', 'the repository is there already, without this copy');
    });
  }

  async #refuseUnwanted(id: string): Promise<'new' | 'living'> {
    const wanted = await this.#dependencies.wanted(id);
    if (wanted !== undefined) return wanted;
    throw new QuorateError('aborted', 'this store is to have no copy of the repository any more');
  }

  begin(id: string, beginning: Beginning): Promise<void> {
    return this.apart(id, () => this.#begin(id, beginning));
  }

  /**
   * Runs what must not meet a beginning: a copy that is removed, or put aside, while a slow disk makes it, would be there
   * after that, and nobody would know of it. The word that it is to go lasts as long, also through the end of this
   * process.
   */
  async apart<T>(id: string, run: () => Promise<T>): Promise<T> {
    const queue = this.#queues.get(id) ?? new SerialQueue();
    this.#queues.set(id, queue);
    try {
      return await queue.run(run);
    } finally {
      if (queue.length === 0) this.#queues.delete(id);
    }
  }

  async #begin(id: string, { atLeast, fresh, source, signal }: Beginning): Promise<void> {
    const { setAside, found, discard, makeFiles } = this.#dependencies;
    const state = fresh === true ? await this.#stateIfSound(id, signal) : await found(id);
    if (state?.frozen !== undefined) {
      // Then it may be the only one that has it (docs/architecture.md, "restored from an old backup").
      if (state.generation > atLeast) {
        const why = 'this copy is ahead of the one that it is to become';
        throw new QuorateError('data-corrupt', why);
      }
      await setAside(id);
    }
    if (state !== undefined && state.frozen === undefined) return;
    const exported = await source([], 0, signal);
    exported.release();
    const { objectFormat, head } = exported;
    await this.#refuseUnwanted(id);
    await discard(id);
    await makeFiles(id, { objectFormat, head: branchOf(head), begun: true });
  }

  /** As `state`, where every kind of damage is called by the same name. Rejects when nobody can say what is here. */
  async #stateIfSound(id: string, signal: AbortSignal): Promise<ReplicaState | undefined> {
    const { verify, found } = this.#dependencies;
    const known = await found(id).catch(() => unreadable);
    if (known === undefined || known.frozen !== undefined) return known;
    const [problem] = (await verify(id, { signal })).problems;
    if (problem !== undefined) return { ...known, frozen: problem };
    // What it failed at a moment ago was not the copy's fault.
    return known === unreadable ? found(id) : known;
  }
}

const unreadable: ReplicaState = { generation: 0, digest: '' };

function branchOf(head: Head): string {
  if ('symref' in head) return head.symref;
  throw new QuorateError('data-corrupt', 'the other store has a detached HEAD');
}
