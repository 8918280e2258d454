import type { MaintenanceProgress } from '../contract/backend.js';
import { asQuorateError, lacksPushes, QuorateError } from '../contract/errors.js';
import type { PeerSource, QuarantineKey } from '../contract/replica.js';
import { catchUpFrom } from './catch-up.js';
import { storageFailure } from './disk-errors.js';
import { BehindError } from './intents.js';
import type { OpenRepository } from './open-repository.js';
import type { LocalReplicaDependencies } from './replica-dependencies.js';
import type { Store } from './store.js';

export interface AdvanceOptions {
  readonly dependencies: LocalReplicaDependencies;
  readonly store: Store;
  readonly abort: (key: QuarantineKey) => Promise<void>;
  /** Applies as a user of the repository, who may stay longer than the caller. */
  readonly apply: (repositoryId: string, generation: number) => Promise<void>;
}

/** A transfer from a peer. */
export interface CatchUp {
  readonly atLeast: number;
  readonly source: PeerSource;
  readonly signal: AbortSignal;
  readonly progress?: (progress: MaintenanceProgress) => void;
}

/**
 * Pushes that wait for one transfer, which may take hours. Each is a call of a front-end that stays open, and those to
 * one store are bounded: a repository that is pushed to twice in a second would take all of them in ten minutes, and the
 * store would serve nobody.
 */
const maxWaiting = 32;

/** Brings repositories to a generation: from the log, and where that does not do, from a peer. */
export class Advance {
  readonly #options: AdvanceOptions;

  constructor(options: AdvanceOptions) {
    this.#options = options;
  }

  /** Catches up from a peer where the log alone does not do. */
  readonly upTo = async (repository: OpenRepository, generation: number): Promise<void> => {
    try {
      await repository.applyUpTo(generation);
    } catch (error) {
      if (!(error instanceof BehindError)) throw error;
      const source = this.#options.dependencies.peers?.(repository.id);
      if (source === undefined) {
        throw new QuorateError(
          'data-corrupt',
          `the push log does not reach from generation ${repository.generation} to ${generation}`,
          { details: { id: repository.id } },
        );
      }
      if (repository.catchUpQueue.length > maxWaiting) throw stillFilling();
      const { signal } = new AbortController();
      await this.fromPeer(repository, { atLeast: generation, source: telling(source), signal });
    }
  };

  /** Whoever reads goes to another store rather than wait for a transfer, which is begun all the same. */
  async forRead(repository: OpenRepository, generation: number): Promise<void> {
    const { dependencies, apply } = this.#options;
    if (dependencies.peers === undefined) return this.upTo(repository, generation);
    try {
      await repository.applyUpTo(generation);
    } catch (error) {
      if (error instanceof BehindError && repository.catchUpQueue.length === 0) {
        void apply(repository.id, generation).catch((failed: unknown) => {
          dependencies.logger.warn(
            { component: 'store', repo: repository.id, err: failed },
            'a repository could not catch up',
          );
        });
      }
      throw error;
    }
  }

  /** Says of what goes wrong that it is not the pack's fault. */
  async toBasis(repository: OpenRepository, basis: number): Promise<void> {
    try {
      await this.upTo(repository, basis);
    } catch (cause) {
      const { code, message, details } = asQuorateError(storageFailure(cause));
      throw new QuorateError(code, message, { details: { ...details, basis }, cause });
    }
  }

  /**
   * One at a time for each repository: whoever waits behind it finds the work done. A peer is asked for whatever it has
   * beyond this store, and the log for the rest: two stores that each prepared what the other lacks would wait for each
   * other if either asked for the head.
   */
  async fromPeer(repository: OpenRepository, catchUp: CatchUp): Promise<void> {
    const { dependencies, store, abort } = this.#options;
    await repository.catchUpQueue.run(async () => {
      do {
        const { generation } = repository;
        if (catchUp.atLeast > 0 && generation >= catchUp.atLeast) return;
        const atLeast = Math.min(catchUp.atLeast, generation + 1);
        await catchUpFrom({ ...dependencies, store, abort }, repository, { ...catchUp, atLeast });
        await repository.applyUpTo(catchUp.atLeast).catch((error: unknown) => {
          if (!(error instanceof BehindError)) throw error;
        });
      } while (repository.generation < catchUp.atLeast);
    });
    dependencies.applied(repository.id);
  }
}

/** Says nothing of what the copy lacks: it may have that in a moment. */
function stillFilling(): QuorateError {
  return new QuorateError(
    'unavailable',
    'this copy is being filled from another storage node, and many pushes wait for that; try again',
  );
}

/** A source that says of its errors that the copy lacks what it was to give. */
function telling(source: PeerSource): PeerSource {
  return async (...question) => {
    try {
      return await source(...question);
    } catch (cause) {
      const { code, message, details } = asQuorateError(cause);
      throw new QuorateError(code, message, { details: { ...details, ...lacksPushes }, cause });
    }
  };
}
