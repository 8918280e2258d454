import type {
  GitStream,
  MaintenanceProgress,
  MaintenanceReport,
  StoredPack,
  StoreShape,
  UploadPackRun,
} from './backend.js';
import type { Head, ObjectFormat, Oid, RefCommand, RefEntry, RefSnapshot } from './objects.js';
import type { HookEnd, HookRun } from './hook.js';
import type { Inspection, PushFact } from './inspection.js';
import type { HeadRecord, LogEntry, RepositoryStats } from './repository.js';
import type { StoredSettings } from './settings.js';
import type { VisibleRefs } from './visible-refs.js';
import type { Readable } from 'node:stream';

/** Which upload: one push may try more than once. Quarantines are keyed by all three. */
export interface QuarantineKey {
  readonly repositoryId: string;
  readonly pushId: string;
  readonly attempt: number;
}

export interface UploadOptions {
  readonly settings: StoredSettings;
  /**
   * Generation on whose objects the pack may build: a thin pack leaves out what the pusher was told is here. The
   * replica applies up to it first; an error of that has `basis` among its details. Absent: whatever it has.
   */
  readonly basis?: number;
  readonly signal: AbortSignal;
  readonly progress: (text: Uint8Array) => void;
}

export interface Uploaded {
  readonly objectCount: number;
  readonly sizeBytes: number;
}

/** What a voter is asked to judge. */
export interface PrepareRequest {
  readonly key: QuarantineKey;
  /** Generation against which the push is judged. The replica applies up to it first. */
  readonly basis: number;
  readonly commands: readonly RefCommand[];
  /** Present for a HEAD change: no commands then. */
  readonly head?: { readonly old: Head; readonly new: Head };
  readonly settings: StoredSettings;
  readonly shallow: readonly Oid[];
  /**
   * A small pack that was not uploaded: it is taken first, as by `upload`, unless an earlier request of this push has
   * brought it. An error of that has `pack` among its details, and leaves no quarantine.
   */
  readonly pack?: Uint8Array;
  /**
   * Its objects are here: they were uploaded, or came with an earlier request. Where they are not, since the store was
   * started again before the push was prepared, that is no fault of the push: `unavailable`, with `gone` among the details.
   */
  readonly uploaded?: true;
  /**
   * Create revisions of the push's locks, or, when it takes none, of its front-end's own key: kept with the quarantine,
   * so that its fate can be found out later. Once one of them is gone, it cannot be committed.
   */
  readonly lockRevisions: readonly { readonly key: string; readonly createRevision: number }[];
  /** Of a push without locks: the head's modification revision. Once that is another, it cannot be committed. */
  readonly headRevision?: number;
  readonly signal: AbortSignal;
}

/** A small pack, before its push has locks; see `UploadOptions` and `PrepareRequest`. */
export interface EarlyPack {
  readonly key: QuarantineKey;
  readonly pack: Uint8Array;
  readonly settings: StoredSettings;
  readonly basis: number;
}

export interface Prepared {
  readonly storeId: string;
  /** Refused refs and the text of their `ng` line. What is not here would apply, all together, in one transaction. */
  readonly refused: ReadonlyMap<string, string>;
  /** Branch that HEAD names at the basis, full name; undefined when HEAD is detached. */
  readonly currentBranch: string | undefined;
  /** Of the pack that came with the request, as it is stored: its bytes. */
  readonly packBytes?: number;
}

/** How far a store is with a repository. */
export interface ReplicaState {
  /** Generation whose marker is durable. */
  readonly generation: number;
  /** Digest of the refs at that generation. */
  readonly digest: string;
  /** Why the store neither serves nor changes this copy, when it does not (refs that are not the marker's, ...). */
  readonly frozen?: string;
  /**
   * Why the copy cannot be read, when it cannot: its marker says all of this, and neither refs nor objects were looked
   * at. Only for who asks for it.
   */
  readonly unread?: string;
}

/** Some of the repositories of a store. */
export interface CopiesPage {
  readonly ids: readonly string[];
  readonly more: boolean;
}

/** A generation of a repository on its way to another store. */
export interface ReplicaExport {
  readonly objectFormat: ObjectFormat;
  readonly generation: number;
  readonly digest: string;
  readonly head: Head;
  readonly refs: readonly RefEntry[];
  /**
   * One pack with everything that the refs reach and the wanted `have` does not, without deltas against what is not in
   * it; undefined when there is nothing to send. Read it once. It fails when the sender goes away.
   */
  readonly pack: AsyncIterable<Uint8Array> | undefined;
  /** Ends the sender's pin. Idempotent. */
  release(): void;
}

/** A push whose objects a store keeps: prepared, and not known to be over. */
export interface HeldPush {
  readonly pushId: string;
  readonly attempt: number;
  /**
   * Undefined when there are too many to keep them with it, or when it is not known which of two verdicts counts.
   */
  readonly updates: readonly RefCommand[] | undefined;
  /** Of updates that `storeUpdates` kept: what that returned. */
  readonly updatesDigest?: string;
  /** What any of several verdicts allowed, where it is not known which of them counts: if none does, all there may be. */
  readonly anyOf?: readonly RefCommand[];
}

/** Which objects of a held push are wanted. */
export interface HeldObjects extends Pick<HeldPush, 'pushId' | 'attempt'> {
  /** Its new values, where whoever asks knows them, as from the log; absent: as the store has them. */
  readonly tips?: readonly Oid[] | undefined;
}

export interface VerifyReport {
  /** Digest of the refs as they are on disk. */
  readonly digest: string;
  readonly generation: number;
  /** What `git fsck` found: broken or missing objects, one line each, at most 100. Empty when all is sound. */
  readonly problems: readonly string[];
}

/** A fork on one store of its source. */
export interface ReplicaFork {
  /** The fork's own id. */
  readonly repositoryId: string;
  readonly sourceId: string;
  /** Pool from which source and fork borrow what they share. */
  readonly poolId: string;
  readonly objectFormat: ObjectFormat;
  /** Generation of the source that `refs` are of. */
  readonly sourceGeneration: number;
  /** Branch that HEAD names, full name. */
  readonly head: string;
  /** What the fork gets; none is symbolic. */
  readonly refs: readonly RefEntry[];
}

/** A read of one replica, pinned to a generation. */
export interface ReplicaRead {
  readonly snapshot: RefSnapshot;
  /** Digest of the snapshot's refs and HEAD. */
  readonly digest: string;
  firstForbiddenWant(wants: readonly Oid[], visible: VisibleRefs): Promise<Oid | undefined>;
  objectSizes(oids: readonly Oid[]): Promise<readonly (number | undefined)[]>;
  uploadPack(run: UploadPackRun): Promise<GitStream>;
  /** As `ReadSession.wholePack`. */
  wholePack(): Promise<StoredPack | undefined>;
  /** As `ReadSession.shape`. */
  shape(): Promise<StoreShape>;
  uploadArchive(run: {
    readonly input: Readable;
    readonly visible: VisibleRefs;
    readonly signal: AbortSignal;
  }): Promise<GitStream>;
  release(): void;
}

/**
 * One store of a repository's replica set: the disk side of the push protocol. `backends/local` is the one on this
 * machine; `backends/node` will be its remote twin. Every method but `upload` is idempotent.
 * Errors: `not-found` (no such repository in this store), `storage-failure`, `data-corrupt`, `resource-exhausted`,
 * `invalid-argument` (a pack that is not one), `cancelled`, `unavailable`.
 */
export interface Replica {
  /** Random, written once to the disk: a wiped or swapped disk is another store. */
  readonly storeId: string;
  /** Makes an empty repository at generation 0. Durable on return. */
  create(
    repositoryId: string,
    options: { readonly objectFormat: ObjectFormat; readonly head: string },
  ): Promise<void>;
  /**
   * Makes a repository at generation 1 with these refs, which borrows its objects from the pool; the source does so,
   * too, from then on. Makes the pool if need be. Durable on return. `aborted` when the store no longer, or not yet,
   * keeps the objects of that generation of the source together: read it again.
   */
  fork(fork: ReplicaFork): Promise<void>;
  /** Gives the repository all objects of the pool for its own, and ends its borrowing. Does nothing when it borrows none. */
  leavePool(repositoryId: string, poolId: string): Promise<void>;
  /** Removes the files of a pool, on a positive tombstone only: no repository of this store borrows from it any more. */
  destroyPool(poolId: string): Promise<void>;
  /**
   * Indexes the pack in a quarantine, checks its integrity and fsck rules, makes it durable. Rejects with
   * `invalid-argument` or `resource-exhausted` for a pack that cannot be taken, and leaves no quarantine then.
   */
  upload(
    key: QuarantineKey,
    pack: AsyncIterable<Uint8Array>,
    options: UploadOptions,
  ): Promise<Uploaded>;
  /**
   * Begins to take a small pack that a request to prepare is going to bring, while its locks are being taken. Only of a
   * store of this process: to another it is cheaper to send both at once. What goes wrong, that request is told; one
   * that never comes is followed by `abort`.
   */
  startTaking?(early: EarlyPack): void;
  /** Judges at the basis, dry-runs the ref transaction, and marks the quarantine prepared, all of it durably. */
  prepare(request: PrepareRequest): Promise<Prepared>;
  /** Refs of a prepared push whose update is no fast-forward. */
  nonFastForwards(
    key: QuarantineKey,
    commands: readonly RefCommand[],
    signal: AbortSignal,
  ): Promise<ReadonlySet<string>>;
  /**
   * Runs a hook, before the commit in view of the quarantine, afterwards of the repository alone; see `RunHook`.
   */
  runHook(key: QuarantineKey, run: HookRun): Promise<HookEnd>;
  /** Answers a question of the rules about a prepared push; see `Inspect` for order, bounds and errors. */
  inspect(key: QuarantineKey, inspection: Inspection): AsyncIterable<PushFact>;
  /**
   * Keeps the updates of an entry too large for the log in the quarantine of a prepared push, durably; the log then
   * carries the SHA-256 of their JSON form, which this returns. They are kept as what is prepared is, also where the push
   * brings no objects. `unavailable` when this store does not know (any more) that it prepared the push.
   */
  storeUpdates(key: QuarantineKey, updates: readonly RefCommand[]): Promise<string>;
  /**
   * Applies committed entries up to `generation`, read from the log, one at a time: intent, promote, refs, marker.
   * Resolves when the marker of `generation` is durable. Errors: those that say `lacksPushes` and `data-corrupt`, of a
   * copy that cannot get there by itself; `unavailable`, also while a git that may be running has the refs locked, and
   * `storage-failure`, after which the same call may finish it.
   */
  apply(repositoryId: string, generation: number): Promise<void>;
  /**
   * A push that is prepared here goes on, though nothing else is asked of this store (its hooks run elsewhere, say): its
   * quarantine does not lie idle. Does nothing when there is none.
   */
  keep(key: QuarantineKey): Promise<void>;
  /** Drops a quarantine whose push is known never to commit. */
  abort(key: QuarantineKey): Promise<void>;
  /**
   * Pushes of a repository that are prepared here, and whose objects are still in their quarantines. `updatesDigests`:
   * those that the log has, which tell of a push that was judged again which of the updates that were kept count.
   */
  heldPushes(
    repositoryId: string,
    updatesDigests?: readonly string[],
  ): Promise<readonly HeldPush[]>;
  /** Makes a quarantine, durably, with all that those of other pushes hold; they keep it as well. */
  gather(key: QuarantineKey, from: readonly Pick<HeldPush, 'pushId' | 'attempt'>[]): Promise<void>;
  /** Generation whose marker is durable. */
  applied(repositoryId: string): Promise<number>;
  /**
   * Pins a generation >= `atLeast`, after applying up to it. `eventual`: whatever else this store has will do; then the
   * coordinator is asked nothing as long as `atLeast` is here, and not waited for where it cannot be reached.
   */
  read(
    repositoryId: string,
    atLeast: number,
    options?: { readonly eventual?: boolean },
  ): Promise<ReplicaRead>;
  maintain(
    repositoryId: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<MaintenanceReport>;
  /** Removes the files, on a positive tombstone only. */
  destroy(repositoryId: string): Promise<void>;
  /**
   * Ids of repositories of which something lies in this store, in order, from after this one on, and whether there are
   * more. `state` says of each whether it is a copy.
   */
  copies(after: string): Promise<CopiesPage>;
  /**
   * What this store holds, without applying anything; undefined when it holds nothing of the repository. Also where the
   * coordinator has no head of it. `unread`: also of a copy that cannot be read, by what it has applied or was about to;
   * `data-corrupt` or `storage-failure` then when not even that can be told.
   */
  state(
    repositoryId: string,
    options?: { readonly unread?: boolean },
  ): Promise<ReplicaState | undefined>;
  stats(repositoryId: string): Promise<Omit<RepositoryStats, 'generation'>>;
  /**
   * Pins a generation >= `atLeast`, after applying up to it, for another store that holds what the `have` reach;
   * unknown ones are ignored.
   */
  export(
    repositoryId: string,
    options: {
      readonly atLeast: number;
      readonly have: readonly Oid[];
      /** The pack is of this push instead, which is prepared here: what its new values reach. */
      readonly held?: HeldObjects;
      readonly signal: AbortSignal;
    },
  ): Promise<ReplicaExport>;
  /**
   * Makes this store as whole as a peer: asks `source` for a generation >= `atLeast`, takes its objects into a
   * quarantine, checks that they are complete, and applies the difference of the refs under one intent, whose digest
   * must be the peer's. A store without the repository makes it first. A copy that is frozen, or `fresh: true`, is
   * set aside and filled anew: the caller has seen to it that it counts for nothing. Resolves when the marker is durable.
   * Until what it begins is filled, also across restarts, reads and exports of it are `unavailable`, and `state` is that
   * of a store without the repository.
   */
  catchUp(
    repositoryId: string,
    options: {
      readonly atLeast: number;
      readonly fresh?: boolean;
      readonly source: PeerSource;
      readonly signal: AbortSignal;
      /** Told of each mebibyte that came from the peer, and of each step. */
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<ReplicaState>;
  /**
   * Reads refs and objects from the disk again (`git fsck`, niced). Changes nothing, but for an apply that was
   * interrupted, which it finishes. That a copy's own files keep it from being opened, or from that, is a problem found.
   * Errors: `storage-failure` when it may be the whole disk or git, `unavailable` while its refs are locked.
   */
  verify(
    repositoryId: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<VerifyReport>;
}

/** Where a store gets what it lacks: some other store of the repository that is far enough. */
export interface PeerSource {
  (have: readonly Oid[], atLeast: number, signal: AbortSignal): Promise<ReplicaExport>;
  /**
   * Ids of the stores that are asked, best first: a replica on another machine asks them itself. Absent: it finds the
   * repository's other stores by itself.
   */
  readonly stores?: readonly string[];
}

/** How a replica reads the committed log. */
export interface LogReader {
  /** The committed head, linearizable. `not-found` when the repository is gone. */
  head(repositoryId: string): Promise<HeadRecord>;
  /** Entries with generations in (after, upTo], in order, linearizable. */
  entries(repositoryId: string, after: number, upTo: number): Promise<readonly LogEntry[]>;
  /**
   * Whether a store is to have a copy of a repository that is being made (`new`), or of one that lives; linearizable.
   * Undefined when it is to have none.
   */
  wantsCopy(repositoryId: string, storeId: string): Promise<'new' | 'living' | undefined>;
}
