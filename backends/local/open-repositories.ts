import type { OpenDependencies } from './open-repository.js';
import { OpenRepository } from './open-repository.js';

/** Refs of this many idle repositories stay in memory; a small one takes some kilobytes. */
const maxIdle = 1000;

/** The repositories in use and the last ones used. */
export class OpenRepositories {
  readonly #dependencies: OpenDependencies;
  /** In order of last use. */
  readonly #open = new Map<string, Promise<OpenRepository>>();
  /** Opened before in this process: what lies in them is our own. */
  readonly #seen = new Set<string>();

  constructor(dependencies: OpenDependencies) {
    this.#dependencies = dependencies;
  }

  /** Counts the caller as a user until it calls `release`. */
  async acquire(id: string): Promise<{ repository: OpenRepository; release: () => void }> {
    let opening = this.#open.get(id);
    if (opening === undefined) {
      opening = OpenRepository.open(this.#dependencies, id, !this.#seen.has(id));
      this.#evict();
    }
    this.#open.delete(id);
    this.#open.set(id, opening);
    let repository: OpenRepository;
    try {
      repository = await opening;
    } catch (error) {
      if (this.#open.get(id) === opening) this.#open.delete(id);
      throw error;
    }
    this.#seen.add(id);
    repository.users++;
    let released = false;
    return {
      repository,
      release: () => {
        if (released) return;
        released = true;
        repository.users--;
      },
    };
  }

  /** Runs `use` as a user of the repository. */
  async with<T>(id: string, use: (repository: OpenRepository) => Promise<T>): Promise<T> {
    const { repository, release } = await this.acquire(id);
    try {
      return await use(repository);
    } finally {
      release();
    }
  }

  /** Forgets a repository whose files are about to go. */
  forget(id: string): void {
    this.#open.delete(id);
    this.#seen.delete(id);
  }

  async #forgetIdle(id: string, opening: Promise<OpenRepository>): Promise<void> {
    const repository = await opening.catch(() => undefined);
    if (repository?.users === 0 && this.#open.get(id) === opening) this.#open.delete(id);
  }

  #evict(): void {
    if (this.#open.size < maxIdle) return;
    for (const [id, opening] of this.#open) {
      void this.#forgetIdle(id, opening);
      return;
    }
  }
}
