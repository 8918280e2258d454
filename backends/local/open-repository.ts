import { isDeepStrictEqual } from 'node:util';
import type { StoreShape } from '../contract/backend.js';
import type { Clock } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { RefCommand, RefSnapshot } from '../contract/objects.js';
import type { LogReader, QuarantineKey, ReplicaExport } from '../contract/replica.js';
import type { LogEntry } from '../contract/repository.js';
import { digestAfter } from '../git/digest.js';
import type { ObjectReader } from '../git/object-reader.js';
import { nextSnapshot } from '../git/ref-snapshot.js';
import {
  applicableTogether,
  cleanUp,
  type Intent,
  lastOf,
  needsLookUp,
  overruling,
  stateAfter,
  writeEffects,
} from './apply-entries.js';
import { storageFailure } from './disk-errors.js';
import { frozen, unlessDiffering } from './frozen.js';
import { Gathering } from './gathering.js';
import { InterruptibleQueue } from './interruptible-queue.js';
import { isZero } from './judge-names.js';
import { BehindError, intentOf, packsIn, predecessorOf } from './intents.js';
import { isOverruled } from './overruled-intent.js';
import { PruneGate } from './prune-gate.js';
import { differenceOf } from './ref-difference.js';
import { DryRuns } from './dry-runs.js';
import { RefsQueue } from './refs-queue.js';
import { KeptShape } from './kept-shape.js';
import {
  type LoadDependencies,
  type LoadedRepository,
  loadRepository,
  refsOf,
  unlessLocked,
} from './load-repository.js';
import { SerialQueue } from './serial-queue.js';
import { intentSteps, markerSteps, replaceMarker, type RepositoryState } from './state-file.js';
import { type RefsIdentity, type WholePack, writeWholePack } from './whole-pack-record.js';

export interface OpenDependencies extends LoadDependencies {
  readonly objects: ObjectReader;
  readonly log: LogReader;
  readonly clock: Clock;
  /** Told of a repository whose files may be why it cannot be opened, or an entry not be applied. */
  readonly suspect?: (repositoryId: string) => void;
}

/** A generation that another store has applied. */
type Adopted = Pick<ReplicaExport, 'generation' | 'digest' | 'head' | 'refs'>;

/**
 * Generations of which the refs stay known: a fetch whose ls-refs was this many pushes ago still gets the commits it
 * was told of.
 */
const retainedGenerations = 8;

/** One repository of this store, in use: its refs in memory, and the one place that changes them on disk. */
export class OpenRepository {
  readonly id: string;
  readonly gitDirectory: string;
  readonly objectsDirectory: string;
  /** Ref transactions, dry runs and ref packing: one at a time, so that none meets another's `.lock` files. */
  readonly refsQueue = new RefsQueue();
  readonly dryRuns: DryRuns;
  /** Maintenance, one run at a time. What shares or takes back the objects of a pool ends a run, which begins again. */
  readonly maintenanceQueue = new InterruptibleQueue();
  /** Transfers from a peer. */
  readonly catchUpQueue = new SerialQueue();
  readonly pruneGate = new PruneGate();
  /** Where committed pushes wait for each other. */
  readonly gathering: Gathering;
  readonly #going = new AbortController();
  readonly #dependencies: OpenDependencies;
  #state: RepositoryState;
  #snapshots: readonly RefSnapshot[];
  /** Highest generation that somebody asked for. */
  #wanted = 0;
  #wholePack: WholePack | undefined;
  readonly #shape: KeptShape;
  /** What an apply that failed half-way was about: its traces are looked for by the next one. */
  #interrupted: Intent | undefined;
  #contradiction: string | undefined;
  /** The coordinator agrees with what was found on the disk; or why not; undefined while it could not be asked. */
  #confirmed: true | undefined | Error;
  #confirming = false;
  /** `.keep` files of promoted packs whose refs are not written yet, or that could not be removed. */
  #keeps = new Set<string>();
  /** Removes what the last apply left; undefined when that is done. */
  #cleaning: Promise<void> | undefined;

  private constructor(dependencies: OpenDependencies, id: string, loaded: LoadedRepository) {
    this.id = id;
    this.gitDirectory = dependencies.store.gitDirectory(id);
    this.objectsDirectory = dependencies.store.objectsDirectory(id);
    this.#dependencies = dependencies;
    this.dryRuns = new DryRuns(this.refsQueue, dependencies.locks);
    this.gathering = new Gathering(dependencies.clock, this.pruneGate);
    this.#shape = new KeptShape(dependencies.clock, this.objectsDirectory);
    this.#state = loaded.state;
    this.#snapshots = [loaded.snapshot];
    this.#wholePack = loaded.wholePack;
  }

  /** As `loadRepository`, and asks the coordinator whether what is on the disk is what it should be. */
  static async open(
    dependencies: OpenDependencies,
    id: string,
    afterStart: boolean,
  ): Promise<OpenRepository> {
    const loaded = await loadRepository(dependencies, id, afterStart);
    const repository = new OpenRepository(dependencies, id, loaded);
    await repository.confirm().catch((error: unknown) => {
      // Said by nobody yet: until it is, this copy is good for eventual reads only.
      if (asQuorateError(error).code !== 'unavailable') throw error;
    });
    return repository;
  }

  get confirmed(): boolean {
    return this.#confirmed === true;
  }

  /** Aborts when the copy is to go: for users that may stay for hours, and whom nobody needs then. */
  get going(): AbortSignal {
    return this.#going.signal;
  }

  /** Ends the users that look at `going`. */
  letGo(): void {
    this.#going.abort();
  }

  /** Makes sure, once, that what lay on the disk is not ahead of the coordinator, nor beside it. */
  async confirm(): Promise<void> {
    if (this.#confirmed === true) return;
    try {
      await this.#refuseRewound();
      this.#confirmed = true;
    } catch (error) {
      const failure = asQuorateError(error);
      this.#confirmed = failure.code === 'unavailable' ? undefined : failure;
      throw failure;
    }
  }

  /** For who does not wait for the coordinator: throws what it is known to have said, and asks it behind the back. */
  confirmLater(): void {
    if (this.#confirmed === true) return;
    const known = this.#confirmed;
    if (!this.#confirming) {
      this.#confirming = true;
      void this.confirm()
        .catch(() => undefined)
        .finally(() => {
          this.#confirming = false;
        });
    }
    if (known !== undefined) throw known;
  }

  get generation(): number {
    return this.#state.generation;
  }

  /** It is no copy yet: nothing has filled it since it was begun. */
  get begun(): boolean {
    return this.#state.begun === true;
  }

  /** For who reads: a copy that was only begun would show refs and HEAD that the repository never had together. */
  refuseBegun(): void {
    if (!this.begun) return;
    throw new QuorateError('unavailable', 'this copy of the repository is still being made');
  }

  /** A peer has nothing that this copy lacks: also of a repository without refs it is one from now on. Durable. */
  async filled(): Promise<void> {
    await this.refsQueue.run(async () => {
      if (!this.begun || this.interrupted) return;
      const { begun: _filled, ...state } = this.#state;
      await replaceMarker(this.#dependencies.store.repositoryDirectory(this.id), state);
      this.#state = state;
    });
  }

  /** Digest of the refs of the applied generation. */
  get digest(): string {
    return this.#state.digest;
  }

  /** The pack that was everything, when the last full repack ended. */
  get wholePack(): WholePack | undefined {
    return this.#wholePack;
  }

  /** Durable on return. */
  async recordWholePack(wholePack: WholePack): Promise<void> {
    await writeWholePack(this.#dependencies.store.wholePackPath(this.id), wholePack);
    this.#wholePack = wholePack;
  }

  /**
   * The generation whose refs are those on disk, while no apply runs; undefined when one stopped half-way, so that
   * the refs may be those of this generation or of the next.
   */
  settled(): Promise<RefsIdentity | undefined> {
    return this.refsQueue.run(() =>
      Promise.resolve(
        this.interrupted ? undefined : { generation: this.generation, digest: this.digest },
      ),
    );
  }

  /**
   * As it was in this generation, a few seconds ago at most. Packs come with generations and go with maintenance; what
   * a fork adds beside them is seen late, which an estimate of memory can bear.
   */
  shape(): Promise<StoreShape> {
    return this.#shape.at(this.generation, this.objectFormat);
  }

  /** The packs have changed without a generation. */
  forgetShape(): void {
    this.#shape.forget();
  }

  get objectFormat(): RepositoryState['objectFormat'] {
    return this.#state.objectFormat;
  }

  /** The refs of the applied generation. */
  get snapshot(): RefSnapshot {
    const newest = this.#snapshots[0];
    if (newest === undefined) throw new QuorateError('internal', 'a repository without a snapshot');
    return newest;
  }

  /** An apply stopped half-way; its objects must stay. */
  get interrupted(): boolean {
    return this.#interrupted !== undefined;
  }

  /** Whether an apply that stopped half-way takes its objects from this quarantine. */
  needs({ pushId }: QuarantineKey): boolean {
    return this.#interrupted?.quarantines.some((key) => key.pushId === pushId) === true;
  }

  /**
   * Finishes an apply that stopped half-way, if there is one that no recovery has overruled since: the next entry of the
   * log writes that back. `unavailable` while a git that may be running has its refs
   * locked, which says nothing of this copy; `data-corrupt` when the refs are others than it found.
   */
  async finish(): Promise<void> {
    await this.refsQueue.run(async () => {
      const intent = this.#interrupted;
      if (intent === undefined) return;
      if (await isOverruled(this.#dependencies.log, this.id, this.#state, intent)) return;
      try {
        await this.#carryOut(intent);
      } catch (error) {
        throw await this.#unlessLocked(error);
      }
    });
  }

  /** As `unlessLocked`, of an apply that stopped half-way. */
  async #unlessLocked(error: unknown): Promise<unknown> {
    const intent = this.#interrupted;
    if (intent === undefined) return error;
    return unlessLocked(this.#dependencies, this.gitDirectory, { error, intent });
  }

  /** Removes what a git that was killed unseen left in the way of packing refs; by who holds their queue. */
  async removeAbandonedLocks(): Promise<void> {
    await this.#dependencies.locks.remove(this.gitDirectory, []);
  }

  /** Why the last apply found that what is on this disk is not what it claims to be. */
  get contradiction(): string | undefined {
    return this.#contradiction;
  }

  /** The last applied generations, newest first. */
  get retained(): readonly RefSnapshot[] {
    return this.#snapshots;
  }

  /**
   * Applies what the log holds up to `generation`. Resolves at once when it is applied already. Rejects with
   * `data-corrupt` when the disk and the coordinator contradict each other, with `BehindError` when the next entry was
   * prepared by other stores only, so that its objects have to come from one of them, and with `unavailable` while a
   * git that may be running has its refs locked.
   */
  async applyUpTo(generation: number): Promise<void> {
    if (this.generation > generation) await this.#refuseRewound();
    if (this.generation >= generation) return;
    this.#wanted = Math.max(this.#wanted, generation);
    await this.refsQueue.run(async () => {
      if (this.generation >= generation) return;
      // Whoever waits behind this call is served as well.
      const entries = await this.#dependencies.log.entries(this.id, this.generation, this.#wanted);
      // The log is trimmed up to what every store of the set has; one that came later starts behind its end.
      const [next] = entries;
      if (next === undefined || predecessorOf(next) !== this.generation) throw new BehindError();
      try {
        for (const group of applicableTogether(entries)) await this.#apply(group);
      } catch (error) {
        // What others asked for beyond that is theirs to wait for.
        if (error instanceof BehindError && this.generation >= generation) return;
        throw await this.#unlessLocked(error);
      }
      if (this.generation < generation) {
        throw new QuorateError(
          'data-corrupt',
          `the push log does not reach from generation ${this.generation} to ${generation}`,
          { details: { id: this.id } },
        );
      }
    });
  }

  /**
   * A disk that is ahead of the coordinator, or differs from it at the same generation, means that the coordinator
   * was restored from an old backup. Serving or committing on would lose what was acknowledged since.
   */
  async #refuseRewound(): Promise<void> {
    const { generation, digest } = this.#state;
    const head = await this.#dependencies.log.head(this.id);
    if (generation < head.generation) return;
    if (generation === head.generation && digest === head.digest) return;
    const other = generation === head.generation ? ', with other refs' : '';
    throw frozen(
      `this disk is at generation ${generation}, and the coordinator, which seems to be an old copy, at ${head.generation}${other}`,
      { id: this.id, generation, head: head.generation, sound: true },
      'put the latest copy of the coordinator back, or have an administrator run quorate recover',
    );
  }

  /**
   * Jumps to a generation that another store has applied and whose objects are in `quarantine`, or here already. The
   * refs' difference is one intent; its digest must come out as the other store's.
   */
  async adopt(adopted: Adopted, quarantine: QuarantineKey | undefined): Promise<void> {
    await this.refsQueue.run(async () => {
      const { generation, digest } = adopted;
      // Its refs may be on disk in part, and are then neither the old nor the new ones of the jump.
      if (this.#interrupted !== undefined) await this.#carryOut(this.#interrupted);
      if (generation <= this.generation) return;
      const { snapshot } = this;
      const updates = differenceOf(snapshot.refs, adopted.refs);
      const head = isDeepStrictEqual(snapshot.head, adopted.head)
        ? {}
        : { head: { old: snapshot.head, new: adopted.head } };
      if (digestAfter(this.digest, updates, head.head) !== digest) {
        throw new QuorateError('data-corrupt', 'the refs of another store do not match its digest');
      }
      await this.#carryOut({
        entries: [{ generation, pushId: 'catch-up', updates, digest, ...head }],
        quarantines: quarantine === undefined ? [] : [quarantine],
      });
    });
  }

  /**
   * Applies entries that `applicableTogether` lets pass: one intent, one ref transaction, one marker, unless one of them
   * needs what another brings.
   */
  async #apply(entries: readonly LogEntry[]): Promise<void> {
    for (let rest = entries; rest.length > 0;) {
      const { id, gitDirectory, snapshot } = this;
      const ground = { id, gitDirectory, snapshot, state: this.#state };
      const intent = await this.#noting(intentOf(this.#dependencies, ground, rest));
      await this.#carryOut(this.#overruling(intent, rest));
      rest = rest.slice(intent.entries.length);
    }
    this.#contradiction = undefined;
  }

  /** With what has to be written back of an apply that stopped half-way, where the log goes on without it. */
  #overruling(intent: Intent, [entry]: readonly LogEntry[]): Intent {
    const stopped = this.#interrupted;
    if (stopped === undefined || entry?.after === undefined) return intent;
    const isBegun = stopped.entries.some(({ pushId }) => pushId === entry.pushId);
    return isBegun ? stopped : overruling(intent, stopped);
  }

  /** What the disk contradicts freezes this copy; what it fails at may be the copy's fault, or the whole disk's. */
  async #noting<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      const { code, message } = asQuorateError(storageFailure(error));
      if (code === 'data-corrupt') this.#contradiction = message;
      if (code === 'storage-failure') this.#dependencies.suspect?.(this.id);
      throw error;
    }
  }

  async #carryOut(intent: Intent): Promise<void> {
    const again = this.interrupted;
    await this.#noting(this.#writeOut(intent));
    // What contradicted it before does so no more.
    if (again) this.#contradiction = undefined;
  }

  async #writeOut(intent: Intent): Promise<void> {
    const dependencies = this.#dependencies;
    const updates = intent.entries.flatMap((entry) => entry.updates);
    const startedMs = dependencies.clock.monotonicMs();
    const again = this.interrupted;
    // Those of a git that was killed; ours is the only one that writes refs, and none runs now.
    if (again) await dependencies.locks.remove(this.gitDirectory, refsOf(intent));
    // What was interrupted may have moved some of them.
    const known = again ? undefined : dependencies.packsOf;
    this.#interrupted = intent;
    const packs = await packsIn(dependencies, intent, known);
    // The same pack may come again, and is to keep its `.keep` file then.
    await this.#cleaning;
    const directory = dependencies.store.repositoryDirectory(this.id);
    const { begun: _filled, ...before } = this.#state;
    const begin = intentSteps(directory, { ...before, applying: intent }, { again });
    const after = stateAfter(this.#state, intent);
    const marker = markerSteps(directory, after);
    // Before the marker: whatever fails up to here is done again, and what is in memory never lags behind the marker.
    const early = needsLookUp(intent) ? undefined : this.#snapshotAfter(intent, new Map());
    const end = early === undefined ? [] : marker;
    const effects = { intent, keeps: this.#keeps, packs, begin, end, isFirst: !again };
    await writeEffects(dependencies, this.id, effects).catch((error: unknown) => {
      throw unlessDiffering(error, this.id);
    });
    const snapshot = early ?? this.#snapshotAfter(intent, await this.#peel(updates));
    if (early === undefined) await dependencies.store.take(marker);
    this.#state = after;
    this.#snapshots = [snapshot, ...this.#snapshots].slice(0, retainedGenerations);
    this.#interrupted = undefined;
    this.gathering.took(dependencies.clock.monotonicMs() - startedMs);
    this.#cleaning = this.#cleanUp(intent);
  }

  #snapshotAfter(intent: Intent, peeled: ReadonlyMap<string, string>): RefSnapshot {
    const { generation, head } = lastOf(intent.entries);
    return nextSnapshot(this.snapshot, {
      generation,
      updates: intent.entries.flatMap((entry) => entry.updates),
      ...(head === undefined ? {} : { head: head.new }),
      peeled,
    });
  }

  /** Resolves when nothing is left of what was applied; undefined when that is so. Whoever applies does not wait. */
  get cleaning(): Promise<void> | undefined {
    return this.#cleaning;
  }

  /** Goes on while the next apply begins. */
  async #cleanUp(intent: Intent): Promise<void> {
    const keeps = this.#keeps;
    this.#keeps = new Set();
    const done = await cleanUp(this.#dependencies, this.id, { intent, keeps });
    if (!done) for (const keep of keeps) this.#keeps.add(keep);
    this.#cleaning = undefined;
  }

  /** What the annotated tags among the new values point at. */
  async #peel(updates: readonly RefCommand[]): Promise<ReadonlyMap<string, string>> {
    // git lets a branch point at nothing but a commit.
    const others = updates.filter(({ ref }) => !ref.startsWith('refs/heads/'));
    const oids = [...new Set(others.map(({ newOid }) => newOid).filter((oid) => !isZero(oid)))];
    return oids.length === 0 ? new Map() : this.#dependencies.objects.peel(this.gitDirectory, oids);
  }
}
