import type { Readable } from 'node:stream';
import type { ClusterControl, StoreView } from './cluster.js';
import type { HeadRecovery } from './recovery.js';
import type { Oid, RefCommand, RefSnapshot } from './objects.js';
import type { Pusher } from './pipeline.js';
import type { RefOutcome, Repository, RepositoryRegistry } from './repository.js';
import type { VisibleRefs } from './visible-refs.js';

/** A running git whose output is streamed. */
export interface GitStream {
  readonly stdout: Readable;
  /**
   * Resolves when git has exited and everything was read. Never rejects: `exitCode` is null when a signal ended it;
   * `signal` is null as well when nobody saw its end, since its helper died: it may then run on for a moment. `stderr` is capped (the last 16 KiB).
   */
  readonly exited: Promise<{
    readonly exitCode: number | null;
    readonly signal: string | null;
    readonly stderr: string;
  }>;
  /** Ends git and its children. Idempotent. */
  kill(): void;
}

export interface UploadPackRun {
  /** 0 stands for v0 and v1 (v1 differs in the first line only, which `core/` writes). */
  readonly protocol: 0 | 2;
  /**
   * What git reads: v2, one whole command request; v0 stateless, one whole POST body. v0 stateful (SSH), the client's
   * bytes after the advertisement, as they come.
   */
  readonly input: Uint8Array | Readable;
  readonly stateless: boolean;
  /** Refs that this run may know of (want-ref, deepen-not, include-tag): the session's snapshot less the hidden ones. */
  readonly visible: VisibleRefs;
  /** git configuration of this run, `key -> value` (`uploadpack.allowFilter`, ...). */
  readonly config: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** What decides how much memory a git takes that makes a pack out of a repository. */
export interface StoreShape {
  /** Of all packs, objects in several of them counted for each; loose ones left out. */
  readonly objectCount: number;
  /** With several, git looks for deltas between objects of different packs, and holds those objects in memory. */
  readonly packCount: number;
}

/** A pack of the store, held open: it stays readable when a repack removes its file. */
export interface StoredPack {
  readonly objectCount: number;
  /** The whole file, its trailer included. */
  readonly sizeBytes: number;
  /** Fills all of `into` with the bytes from `offset` on. `data-corrupt` when the file ends before, `storage-failure`. */
  read(into: readonly Uint8Array[], offset: number): Promise<void>;
  /** Idempotent. No read may be running. */
  close(): Promise<void>;
}

/** A read pinned to one generation. Everything it answers comes from that generation. Release it. */
export interface ReadSession {
  readonly repository: Repository;
  readonly snapshot: RefSnapshot;
  /** It came from memory, to who asked for `refsOnly`: it answers nothing else (`internal`). */
  readonly refsOnly: boolean;
  /**
   * The first of `wants` that may not be served, or undefined when all may: a commit or tag must be reachable from a
   * visible ref of this or one of the last retained generations; a tree or blob must be in the promoted store.
   */
  firstForbiddenWant(wants: readonly Oid[], visible: VisibleRefs): Promise<Oid | undefined>;
  /** Sizes in bytes of objects in the promoted store, in order; undefined for an unknown id. */
  objectSizes(oids: readonly Oid[]): Promise<readonly (number | undefined)[]>;
  uploadPack(run: UploadPackRun): Promise<GitStream>;
  /**
   * A stored pack that holds exactly what the refs of the snapshot reach, hidden ones included, or undefined when
   * there is none: then git has to make one. Its deltas may name their bases by offset (`ofs-delta`). Close it.
   */
  wholePack(): Promise<StoredPack | undefined>;
  /** Of the store as it is now. Reads directories, no objects. */
  shape(): Promise<StoreShape>;
  /** `git upload-archive` over the visible refs: reads the client's request from `input`. */
  uploadArchive(run: {
    readonly input: Readable;
    readonly visible: VisibleRefs;
    readonly signal: AbortSignal;
  }): Promise<GitStream>;
  /** Idempotent. */
  release(): void;
}

export interface PushRequest {
  /** Unique for ever; given by the front-end. */
  readonly pushId: string;
  readonly actor: string;
  /** Default: the actor, in no group. */
  readonly pusher?: Pusher;
  readonly commands: readonly RefCommand[];
  /** Refused before the upload (authorisation, hidden or funny names): ref -> text of the `ng` line. Reported, never applied. */
  readonly refused: ReadonlyMap<string, string>;
  readonly atomic: boolean;
  readonly pushOptions: readonly string[];
  /**
   * The pack's bytes, or undefined when every command deletes. Read at the pace of the slowest consumer; its chunks
   * wait in queues, so their memory must not be used again by whoever made them.
   */
  readonly pack: IncomingPack | undefined;
  /** `shallow` lines of a push from a shallow clone. */
  readonly shallow: readonly Oid[];
  /** Text for the pusher's terminal (side-band 2). Bounded by the caller; never throws. */
  readonly progress: (text: Uint8Array) => void;
  readonly quiet: boolean;
  /**
   * Told the result as soon as it stands, while the refs are still being written: what has to be kept of a push is
   * written beside them. Not by every backend. Never throws.
   */
  readonly committed?: (result: PushResult) => void;
  /** The client is gone. Aborts up to the commit point and changes nothing after it. */
  readonly signal: AbortSignal;
}

/** The pack of a push, as its client sends it. */
export interface IncomingPack extends AsyncIterable<Uint8Array> {
  /** All of it, where it is here as a whole; nothing is left then. Undefined, with nothing taken, where more may come. */
  takeWhole?(): Uint8Array | undefined;
}

export interface PushResult {
  /** `ok`, or why the pack was not taken (then every ref is refused). Text of the `unpack` line. */
  readonly unpack: string;
  /** One per command, in the order of the commands. */
  readonly refs: readonly RefOutcome[];
  /** The generation that the push made; undefined when nothing changed or the backend has none. */
  readonly generation?: number;
}

export interface MaintenanceProgress {
  readonly step: string;
  readonly done: number;
  readonly total: number;
}

export interface MaintenanceReport {
  readonly packsBefore: number;
  readonly packsAfter: number;
  readonly sizeBytesBefore: number;
  readonly sizeBytesAfter: number;
  readonly durationMs: number;
}

export interface LockInfo {
  readonly scope: 'ref' | 'repository' | 'global';
  /** Absent for the global lock. */
  readonly repositoryId?: string;
  /** Its name now; absent when it is gone. */
  readonly repository?: string;
  readonly ref?: string;
  readonly state: 'held' | 'waiting';
  readonly holder: string;
  readonly pushId: string;
  readonly ageMs: number;
}

export interface BackendStatus {
  readonly backend: string;
  readonly repositories: number;
  /** What objects are indexed with: `libgit2 1.5.1 + git 2.39.5`, or `git 2.39.5 (libgit2 not found)`. */
  readonly objectEngine: string;
  readonly pushesRunning: number;
  readonly maintenanceQueued: number;
  readonly quarantines: number;
}

export interface BackendCapabilities {
  /** Pushes pass through the coordinator's log (generations, locks, crash recovery by intent). */
  readonly generations: boolean;
  /** A rename keeps the repository's id and running requests. */
  readonly renameIsInstant: boolean;
  /** Rules may ask about new objects and fast-forwards before a push changes anything. */
  readonly inspectsPushes: boolean;
  /** Repositories can be forked. */
  readonly forks: boolean;
}

/** What a request to read wants besides a state of the repository. */
export interface ReadOptions {
  /** Only the snapshot is asked for, so far: it may come from memory, and no store be asked (`ReadSession.refsOnly`). */
  readonly refsOnly?: boolean;
  /** The read sees this generation or a later one; `failed-precondition` when there is none yet. */
  readonly atLeast?: number | undefined;
  /** A strong read, also where the repository is set to eventual ones: somebody is to push by what it shows. */
  readonly strong?: boolean;
}

/**
 * Keeps repositories. Errors: `not-found` (deleted meanwhile), `unavailable` (not started, draining),
 * `storage-failure`, `data-corrupt`, `deadline-exceeded`, `resource-exhausted`, `cancelled`.
 */
export interface Backend {
  readonly capabilities: BackendCapabilities;
  /** Undefined where the repositories are other tools' as well, and no record of pushes is kept. */
  readonly stores: StoreView | undefined;
  /** Undefined where there is one store only. */
  readonly cluster: ClusterControl | undefined;
  /** Undefined where repositories have no heads in the coordinator. */
  readonly recovery: HeadRecovery | undefined;
  readonly repositories: RepositoryRegistry;
  /**
   * Recovers what a crash left, then serves. Nothing is served before it resolves. `frozen`: the coordinator is not to
   * be trusted (it is an older copy of itself), so nothing is recovered or dropped by its word, and only reads succeed.
   */
  start(options?: { readonly frozen?: boolean }): Promise<void>;
  /**
   * A strong read: sees every push acknowledged before the call; where the repository or the server is set to eventual
   * reads, whatever some store has.
   */
  read(repository: Repository, signal: AbortSignal, options?: ReadOptions): Promise<ReadSession>;
  /**
   * Resolves after the primary has applied (or all was refused). On return with a ref `ok`, the update is durable and
   * the next read sees it. A rejection before the commit point means that nothing changed; `outcome-unknown` is the
   * one code that does not say so, and the listener closes the connection without a verdict.
   * What a refused push leaves of the pack unread is the caller's to drain; it is not read after the return.
   */
  push(repository: Repository, request: PushRequest): Promise<PushResult>;
  /** Repack, pack refs, prune what is safe to prune. One at a time per repository; joins a run that has not started. */
  maintain(
    repository: Repository,
    options: {
      readonly signal: AbortSignal;
      readonly progress?: (progress: MaintenanceProgress) => void;
    },
  ): Promise<MaintenanceReport>;
  /**
   * Fills an empty repository from another Git repository (a URL that git can fetch, or an absolute path), as one
   * committed entry. `failed-precondition` when it is not empty.
   */
  importFrom(
    repository: Repository,
    source: string,
    options: {
      readonly actor: string;
      readonly signal: AbortSignal;
      readonly progress: (progress: MaintenanceProgress) => void;
    },
  ): Promise<{ readonly refs: number }>;
  locks(): Promise<readonly LockInfo[]>;
  status(): Promise<BackendStatus>;
  /** Finishes what runs, bounded by `graceMs`, then stops its processes. Idempotent. */
  close(graceMs: number): Promise<void>;
}
