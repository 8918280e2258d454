import type { MaintenanceProgress, MaintenanceReport } from '../contract/backend.js';
import { asQuorateError, refuseCancelled } from '../contract/errors.js';
import type { RepositoryStats } from '../contract/repository.js';
import { evenTime } from '../git/even-time.js';
import {
  MAX_LOOSE_REFS,
  maintainRepository,
  MISSED_CLONES,
  type MaintenanceNeed,
  needsMaintenance,
} from '../git/maintenance.js';
import { hasMoreLooseRefs } from '../git/repository-files.js';
import { isOfTheMachine } from './disk-errors.js';
import { MissedClones } from './missed-clones.js';
import type { ObjectPools } from './object-pools.js';
import type { OpenRepositories } from './open-repositories.js';
import type { OpenRepository } from './open-repository.js';
import type { LocalReplicaDependencies } from './replica-dependencies.js';
import type { Store } from './store.js';
import { repackRecorded } from './whole-pack.js';

export interface MaintainOptions {
  readonly signal: AbortSignal;
  /** Default: the most thorough that does not take long. */
  readonly kind?: 'geometric' | 'full';
  readonly progress?: (progress: MaintenanceProgress) => void;
}

export interface UpkeepOptions {
  readonly dependencies: LocalReplicaDependencies;
  readonly store: Store;
  readonly open: OpenRepositories;
  readonly pools: ObjectPools;
  /** Whether an earlier process may have judged a push by what is here, whose fate is not settled yet. */
  readonly isLeft: (repositoryId: string) => boolean;
  readonly applyUpTo: (repository: OpenRepository, generation: number) => Promise<void>;
}

/** Maintenance of the repositories of a store, and when it pays. */
export class Upkeep {
  readonly #options: UpkeepOptions;
  readonly #missedClones = new MissedClones();
  readonly #evenNowMs: () => number;

  constructor(options: UpkeepOptions) {
    this.#options = options;
    this.#evenNowMs = evenTime(options.dependencies.clock);
  }

  /** A clone of everything that git has to serve. When they are many, a repack may be due. */
  missedClone({ id, generation }: OpenRepository): void {
    const count = this.#missedClones.note(id, generation);
    // Once for a generation: what stays unfit to be sent as it is (shallow, kept) is not packed over and over.
    if (count === MISSED_CLONES) this.#options.dependencies.applied(id);
  }

  /** Looks at file counts only; runs no git. */
  async need(repositoryId: string): Promise<MaintenanceNeed> {
    const { store, pools } = this.#options;
    const objectsDirectory = store.objectsDirectory(repositoryId);
    const { own } = await pools.stats(objectsDirectory);
    const need = needsMaintenance(own, this.#missedClones.of(repositoryId));
    if (need !== 'none') return need;
    if (await pools.needsMaintenance(objectsDirectory)) return 'full';
    const gitDir = store.gitDirectory(repositoryId);
    return (await hasMoreLooseRefs(gitDir, MAX_LOOSE_REFS)) ? 'geometric' : 'none';
  }

  async stats(repositoryId: string): Promise<Omit<RepositoryStats, 'generation'>> {
    const { store, pools, open } = this.#options;
    const { own, sharedBytes } = await pools.stats(store.objectsDirectory(repositoryId));
    const { packCount, cruftPackCount, looseObjectCount, sizeBytes } = own;
    return open.with(repositoryId, async (repository) => {
      repository.refuseBegun();
      const { head, refs } = repository.snapshot;
      return {
        head,
        refCount: refs.length,
        packCount: packCount + cruftPackCount,
        looseObjectCount,
        sizeBytes,
        sharedBytes,
      };
    });
  }

  maintain(repositoryId: string, options: MaintainOptions): Promise<MaintenanceReport> {
    return this.#options.open.with(repositoryId, (repository) => {
      const signal = AbortSignal.any([options.signal, repository.going]);
      return repository.maintenanceQueue.runLong(
        (ended) => this.#run(repository, ended, { ...options, signal }),
        signal,
      );
    });
  }

  async #run(
    repository: OpenRepository,
    ended: AbortSignal,
    { signal, kind, progress }: MaintainOptions,
  ): Promise<MaintenanceReport> {
    const { dependencies, pools, isLeft, applyUpTo } = this.#options;
    const { git, clock, log, logger, objects, pruneGraceMs } = dependencies;
    refuseCancelled(signal);
    // What is committed and not applied relies on objects that nothing on this disk reaches yet.
    const { generation } = await log.head(repository.id);
    await applyUpTo(repository, generation);
    const either = AbortSignal.any([signal, ended]);
    await pools.maintain(repository, either);
    const report = await this.#maintained(repository.id, {
      git,
      gitDir: repository.gitDirectory,
      clock,
      evenNowMs: this.#evenNowMs,
      signal: either,
      keepPacks: await pools.packsToKeep(repository.objectsDirectory),
      holdRefs: (step) =>
        repository.refsQueue.run(async () => {
          await repository.removeAbandonedLocks();
          await step();
        }),
      holdJudging: async (step) =>
        !isLeft(repository.id) && (await repository.pruneGate.tryPrune(step)),
      aroundRepack: (repackKind, repack) =>
        repackRecorded(repository, { kind: repackKind, repack, logger }),
      pinned: repository.retained.flatMap(({ refs }) => refs.map(({ oid }) => oid)),
      graceMs: pruneGraceMs,
      ...(kind === undefined ? {} : { kind }),
      ...(progress === undefined ? {} : { progress }),
    });
    repository.forgetShape();
    await objects.release(repository.gitDirectory);
    this.#missedClones.forget(repository.id);
    return report;
  }

  /** Maintenance reads what nobody may have read for long: it is often the first to meet damage. */
  async #maintained(
    repositoryId: string,
    options: Parameters<typeof maintainRepository>[0],
  ): Promise<MaintenanceReport> {
    try {
      return await maintainRepository(options);
    } catch (error) {
      const { code } = asQuorateError(error);
      const ofTheCopy = code === 'storage-failure' || code === 'data-corrupt';
      if (ofTheCopy && !isOfTheMachine(error)) this.#options.dependencies.suspect?.(repositoryId);
      throw error;
    }
  }
}
