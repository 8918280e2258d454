import type {
  GitStream,
  MaintenanceProgress,
  MaintenanceReport,
  StoredPack,
  UploadPackRun,
} from './backend.js';
import type { Head, ObjectFormat, Oid, RefCommand, RefSnapshot } from './objects.js';
import type { HookEnd, HookRun } from './hook.js';
import type { Inspection, PushFact } from './inspection.js';
import type { HeadRecord, LogEntry } from './repository.js';
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
  /** Create revisions of the push's locks: kept with the quarantine, so that its fate can be found out later. */
  readonly lockRevisions: readonly { readonly key: string; readonly createRevision: number }[];
  /** True on the primary: it walks the new objects. */
  readonly walk: boolean;
  readonly signal: AbortSignal;
}

export interface Prepared {
  readonly storeId: string;
  /** Refused refs and the text of their `ng` line. What is not here would apply, all together, in one transaction. */
  readonly refused: ReadonlyMap<string, string>;
  /** Branch that HEAD names at the basis, full name; undefined when HEAD is detached. */
  readonly currentBranch: string | undefined;
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
   * Indexes the pack in a quarantine, checks its integrity and fsck rules, makes it durable. Rejects with
   * `invalid-argument` or `resource-exhausted` for a pack that cannot be taken, and leaves no quarantine then.
   */
  upload(
    key: QuarantineKey,
    pack: AsyncIterable<Uint8Array>,
    options: UploadOptions,
  ): Promise<Uploaded>;
  /** Judges at the basis, dry-runs the ref transaction, and marks the quarantine prepared, durably. */
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
   * Keeps the updates of an entry too large for the log in the quarantine, durably; the log then carries the SHA-256
   * of their JSON form, which this returns.
   */
  storeUpdates(key: QuarantineKey, updates: readonly RefCommand[]): Promise<string>;
  /**
   * Applies committed entries up to `generation`, read from the log, one at a time: intent, promote, refs, marker.
   * Resolves when the marker of `generation` is durable.
   */
  apply(repositoryId: string, generation: number): Promise<void>;
  /** Drops a quarantine whose push is known never to commit. */
  abort(key: QuarantineKey): Promise<void>;
  /** Generation whose marker is durable. */
  applied(repositoryId: string): Promise<number>;
  /** Pins a generation >= `atLeast`, after applying up to it. */
  read(repositoryId: string, atLeast: number): Promise<ReplicaRead>;
  maintain(
    repositoryId: string,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<MaintenanceReport>;
  /** Removes the files, on a positive tombstone only. */
  destroy(repositoryId: string): Promise<void>;
}

/** How a replica reads the committed log. */
export interface LogReader {
  /** The committed head, linearizable. `not-found` when the repository is gone. */
  head(repositoryId: string): Promise<HeadRecord>;
  /** Entries with generations in (after, upTo], in order, linearizable. */
  entries(repositoryId: string, after: number, upTo: number): Promise<readonly LogEntry[]>;
}
