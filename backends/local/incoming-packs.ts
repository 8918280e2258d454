import { QuorateError, asQuorateError } from '../contract/errors.js';
import type { PrepareRequest, QuarantineKey, UploadOptions } from '../contract/replica.js';
import { booleanSetting, listSetting, numberSetting } from '../contract/settings.js';
import { failedAt, failedStep, type FileStep } from '../git/file-steps.js';
import type { IndexedPack } from '../git/pack-indexer.js';
import { storageFailure } from './disk-errors.js';
import type { LiveQuarantine, LiveQuarantines } from './live-quarantines.js';
import type { OpenRepository } from './open-repository.js';
import { packDirectoryOf, takeQuarantine } from './quarantine.js';
import type { LocalReplicaDependencies } from './replica-dependencies.js';
import type { Store } from './store.js';

type IncomingDependencies = Pick<LocalReplicaDependencies, 'indexer' | 'clock' | 'logger'>;
type Receiver = Pick<OpenRepository, 'objectsDirectory' | 'objectFormat'>;
type TakeOptions = Omit<UploadOptions, 'basis'> & { readonly syncsLater?: true };

interface Early {
  readonly cancel: AbortController;
  /** Never rejects. */
  readonly ended: Promise<QuorateError | undefined>;
}

/** Packs of pushes on their way into quarantines. */
export class IncomingPacks {
  readonly #dependencies: IncomingDependencies;
  readonly #store: Store;
  readonly #quarantines: LiveQuarantines;
  /** By push: packs that are taken before the request to prepare; until that comes, or the push is aborted. */
  readonly #early = new Map<string, Early>();

  constructor(dependencies: IncomingDependencies, store: Store, quarantines: LiveQuarantines) {
    this.#dependencies = dependencies;
    this.#store = store;
    this.#quarantines = quarantines;
  }

  /**
   * Indexes a pack in a quarantine of its own. What cannot be taken leaves none. What is synced later may be in a spare
   * quarantine until then, or until `name`.
   */
  async take(
    repository: Receiver,
    key: QuarantineKey,
    pack: AsyncIterable<Uint8Array>,
    { settings, ...options }: TakeOptions,
  ): Promise<IndexedPack> {
    const directory = this.#store.quarantineDirectory(key);
    const spare = options.syncsLater === true ? this.#store.spares.take() : undefined;
    const quarantinePackDir =
      spare === undefined ? await takeQuarantine(this.#store, directory) : packDirectoryOf(spare);
    const live = this.#quarantines.remember(key);
    live.touchedMs = Infinity;
    if (spare !== undefined) {
      live.spare = spare;
      this.#store.spares.marked(directory);
    }
    let indexed: IndexedPack;
    try {
      indexed = await this.#dependencies.indexer.index({
        ...options,
        pack,
        quarantinePackDir,
        objectsDir: repository.objectsDirectory,
        objectFormat: repository.objectFormat,
        maxPackBytes: numberSetting(settings, 'receive.maxInputSize'),
        maxObjectBytes: numberSetting(settings, 'receive.maxObjectSize'),
        fsck: {
          enabled: booleanSetting(settings, 'receive.fsckObjects'),
          ignore: listSetting(settings, 'receive.fsck.ignore'),
        },
      });
      live.indexed = spare === undefined ? indexed : withName(indexed, spare, directory);
      live.touchedMs = this.#dependencies.clock.monotonicMs();
    } catch (error) {
      await this.#quarantines.remove(key).catch((left: unknown) => {
        this.#dependencies.logger.warn(
          { component: 'quarantine', repo: key.repositoryId, push_id: key.pushId, err: left },
          'a refused upload left its quarantine behind',
        );
      });
      throw error;
    }
    // What has the name already, if anything does, is not to be removed for that.
    if (indexed.unsynced === undefined) await this.name(live);
    return indexed;
  }

  /** Runs `taking` for a push whose request to prepare has not come yet. */
  begin(key: QuarantineKey, taking: (signal: AbortSignal) => Promise<void>): void {
    const cancel = new AbortController();
    const ended = taking(cancel.signal).then(() => undefined, asQuorateError);
    this.#early.set(nameOf(key), { cancel, ended });
  }

  /** When what was begun of this push has ended. Throws what its pack did not come through. */
  async begun(key: QuarantineKey): Promise<void> {
    const error = await this.#early.get(nameOf(key))?.ended;
    this.#early.delete(nameOf(key));
    // Other trouble the request finds by itself, or it is over.
    if (error !== undefined && 'pack' in error.details) throw error;
  }

  /** Ends what was begun of this push. */
  async stop(key: QuarantineKey): Promise<void> {
    const early = this.#early.get(nameOf(key));
    early?.cancel.abort('over');
    await early?.ended;
    this.#early.delete(nameOf(key));
  }

  /**
   * Takes the pack that came with a request to prepare, if there is one. A request may come twice, and another one of
   * the same push while the pack of the first is being taken. `syncPack` is left to be done.
   */
  async takeWith(
    repository: Receiver,
    request: Pick<PrepareRequest, 'key' | 'pack' | 'settings' | 'signal'>,
  ): Promise<void> {
    const { key, pack, settings, signal } = request;
    if (pack === undefined) return;
    for (;;) {
      await this.#quarantines.removed(key);
      const live = this.#quarantines.find(key.repositoryId, key.pushId);
      if (live?.indexed !== undefined) return;
      if (live?.arriving === undefined) break;
      await live.arriving;
    }
    const options = { settings, signal, progress: () => undefined, syncsLater: true } as const;
    const taking = this.take(repository, key, once(pack), options);
    const live = this.#quarantines.remember(key);
    live.arriving = taking.then(
      () => undefined,
      () => undefined,
    );
    try {
      await taking;
    } catch (error) {
      throw ofPack(error);
    } finally {
      delete live.arriving;
    }
  }

  /** Gives the objects of a push their own place, unless they have it. */
  async name(live: LiveQuarantine): Promise<void> {
    try {
      await this.#takeNamed(live, []);
    } catch (error) {
      throw ofPack(error);
    }
  }

  /** Takes steps when the objects of a push have their own place: the first of them, perhaps, sees to that. */
  async #takeNamed(live: LiveQuarantine, steps: readonly FileStep[]): Promise<void> {
    if (live.spare === undefined || live.named !== undefined) {
      await live.named;
      if (live.spare !== undefined) {
        throw new QuorateError('storage-failure', 'the pack of the push is not in its place');
      }
      if (steps.length > 0) await this.#store.take(steps);
      return;
    }
    const directory = this.#store.quarantineDirectory(live.key);
    const taking = this.#store.take([{ do: 'rename', from: live.spare, to: directory }, ...steps]);
    const settle = (error?: unknown): void => {
      if (error === undefined || (failedStep(error) ?? 0) > 0) delete live.spare;
    };
    live.named = taking.then(() => settle(), settle);
    try {
      await taking;
    } catch (error) {
      throw failedAt((failedStep(error) ?? 0) - 1, error);
    }
  }

  /**
   * Has on disk what `takeWith` left to be synced, and then takes steps that rely on it: all in one list. The pack is
   * tried once: a disk may tell of a failure once. An error of the steps is as if they were taken alone.
   */
  async syncPack(live: LiveQuarantine, then: readonly FileStep[] = []): Promise<void> {
    const unsynced = live.indexed?.unsynced;
    if (unsynced === undefined || live.synced !== undefined) {
      await live.synced?.catch((error: unknown) => {
        throw ofPack(error);
      });
      await this.#takeNamed(live, then);
      return;
    }
    const syncs = unsynced.map((path): FileStep => ({ do: 'sync', path }));
    const taking = this.#takeNamed(live, [...syncs, ...then]);
    const ofSteps = (error: unknown): number => (failedStep(error) ?? -1) - syncs.length;
    live.synced = taking.catch((error: unknown) => {
      if (ofSteps(error) < 0) throw error;
    });
    try {
      await Promise.all([live.synced, taking]);
    } catch (error) {
      const step = ofSteps(error);
      throw step < 0 ? ofPack(error) : failedAt(step, error);
    }
  }
}

function nameOf({ repositoryId, pushId, attempt }: QuarantineKey): string {
  return `${repositoryId} ${pushId} ${attempt}`;
}

/** What was indexed in a spare quarantine, as it will be. */
function withName(indexed: IndexedPack, spare: string, directory: string): IndexedPack {
  const { unsynced } = indexed;
  if (unsynced === undefined) return indexed;
  return { ...indexed, unsynced: unsynced.map((path) => directory + path.slice(spare.length)) };
}

/** Says of what goes wrong that it is about the pack. */
function ofPack(cause: unknown): QuorateError {
  const { code, message, details } = asQuorateError(storageFailure(cause));
  return new QuorateError(code, message, { details: { ...details, pack: true }, cause });
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
