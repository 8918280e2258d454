import { asQuorateError, QuorateError } from '../contract/errors.js';
import { AbandonedLocks } from '../git/abandoned-locks.js';
import { storageFailure } from './disk-errors.js';
import { type OpenDependencies, OpenRepository } from './open-repository.js';

export interface OpenLimits {
  /** Repositories that stay in memory when nobody uses them; a small one takes some kilobytes. */
  readonly repositories: number;
  /** Refs that stay in memory with them: some 200 bytes each. */
  readonly refs: number;
}

const defaultLimits: OpenLimits = { repositories: 1000, refs: 2_000_000 };

interface Slot {
  readonly opening: Promise<OpenRepository>;
  repository?: OpenRepository;
  /** Reads, pushes, maintenance: counted from the moment they ask, before it is open. */
  users: number;
  /** Told when the last user leaves. */
  readonly onIdle: (() => void)[];
}

/** How a copy goes. */
export interface Removal {
  /** Asked when nobody uses the copy any more, which may take hours: what it fails with keeps the copy. */
  readonly confirm?: () => Promise<void>;
}

export interface PuttingAside extends Removal {
  /** With the objects of pushes whose fate is not known. */
  readonly prepared?: boolean;
}

/**
 * The repositories in use and the last ones used. There is one object for each repository at any time: its queues and
 * its prune gate are what keeps users apart, so it may go only while nobody uses it and no push is judged by it.
 */
export class OpenRepositories {
  readonly #dependencies: OpenDependencies;
  readonly #limits: OpenLimits;
  /** In order of last use. */
  readonly #open = new Map<string, Slot>();
  /** Opened before in this process: what lies in them is our own. */
  readonly #seen = new Set<string>();
  /** How many remove the files of a repository, or wait for that. */
  readonly #retiring = new Map<string, number>();

  constructor(dependencies: Omit<OpenDependencies, 'locks'>, limits = defaultLimits) {
    // Of all repositories: what was met in one that has gone out of memory is known when it is back.
    this.#dependencies = { ...dependencies, locks: new AbandonedLocks(dependencies.clock) };
    this.#limits = limits;
  }

  /**
   * The repository if it is open and a whole copy, and the coordinator has confirmed what was on the disk. Nobody becomes
   * a user.
   */
  peek(id: string): OpenRepository | undefined {
    const slot = this.#open.get(id);
    const repository = slot?.repository;
    if (slot === undefined || repository?.confirmed !== true || repository.begun) return undefined;
    if (this.#retiring.has(id)) return undefined;
    this.#open.delete(id);
    this.#open.set(id, slot);
    return repository;
  }

  /**
   * Counts the caller as a user until it calls `release`. `unconfirmed`: also while the coordinator cannot be asked
   * whether what is on the disk is what it should be.
   */
  async acquire(
    id: string,
    { unconfirmed = false }: { readonly unconfirmed?: boolean } = {},
  ): Promise<{ repository: OpenRepository; release: () => void }> {
    if (this.#retiring.has(id)) throw new QuorateError('not-found', 'the repository was deleted');
    let slot = this.#open.get(id);
    const opens = slot === undefined;
    if (slot === undefined) {
      const opening = OpenRepository.open(this.#dependencies, id, !this.#seen.has(id));
      slot = { opening, users: 0, onIdle: [] };
    }
    this.#open.delete(id);
    this.#open.set(id, slot);
    slot.users++;
    try {
      slot.repository = await slot.opening;
      if (unconfirmed) slot.repository.confirmLater();
      else await slot.repository.confirm();
    } catch (error) {
      // One that is open has other users, perhaps, and there may be no second one of it.
      if (slot.repository === undefined && this.#open.get(id) === slot) this.#open.delete(id);
      leave(slot);
      const failure = storageFailure(error);
      if (asQuorateError(failure).code === 'storage-failure') this.#dependencies.suspect?.(id);
      throw failure;
    }
    this.#seen.add(id);
    if (opens) this.#evict();
    const used = slot;
    let released = false;
    return {
      repository: slot.repository,
      release: () => {
        if (released) return;
        released = true;
        leave(used);
      },
    };
  }

  /** Runs `use` as a user of the repository. */
  async with<T>(id: string, use: (repository: OpenRepository) => Promise<T>): Promise<T> {
    const { repository, release } = await this.acquire(id);
    try {
      return await use(repository);
    } catch (error) {
      throw storageFailure(error);
    } finally {
      release();
    }
  }

  /** Refuses new users, waits for those there are (see `letGo`), then forgets the repository and removes its files. */
  async retire(id: string, remove: () => Promise<void>): Promise<void> {
    this.#retiring.set(id, (this.#retiring.get(id) ?? 0) + 1);
    try {
      const slot = this.#open.get(id);
      void slot?.opening.then(
        (repository) => repository.letGo(),
        () => undefined,
      );
      if (slot !== undefined && slot.users > 0) {
        await new Promise<void>((resolve) => slot.onIdle.push(resolve));
      }
      await slot?.repository?.cleaning;
      this.#open.delete(id);
      this.#seen.delete(id);
      await remove();
    } finally {
      const others = (this.#retiring.get(id) ?? 1) - 1;
      if (others === 0) this.#retiring.delete(id);
      else this.#retiring.set(id, others);
    }
  }

  /** Somebody removes its files, or waits for that. */
  retires(id: string): boolean {
    return this.#retiring.has(id);
  }

  /** For who would put another copy in its place. */
  refuseRetiring(id: string): void {
    if (!this.#retiring.has(id)) return;
    throw new QuorateError(
      'unavailable',
      'what this store has of the repository is on its way out',
    );
  }

  /** Resolves when nothing is left of what was applied up to now. */
  async cleaned(): Promise<void> {
    for (const { repository } of this.#open.values()) await repository?.cleaning;
  }

  #evict(): void {
    let count = this.#open.size;
    let refs = 0;
    for (const { repository } of this.#open.values()) refs += repository?.snapshot.refs.length ?? 0;
    for (const [id, { repository, users }] of this.#open) {
      if (count <= this.#limits.repositories && refs <= this.#limits.refs) return;
      if (repository === undefined || users > 0 || repository.pruneGate.occupied) continue;
      if (repository.cleaning !== undefined) continue;
      this.#open.delete(id);
      count--;
      refs -= repository.snapshot.refs.length;
    }
  }
}

function leave(slot: Slot): void {
  slot.users--;
  if (slot.users === 0) for (const tell of slot.onIdle.splice(0)) tell();
}
