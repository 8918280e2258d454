/** What the server and a libgit2 worker process tell each other over the IPC channel (advanced serialization). */

export interface IndexJob {
  readonly id: number;
  readonly pack: Uint8Array;
  /** Existing and empty; its parent is the quarantine's object directory. */
  readonly quarantinePackDir: string;
  readonly objectsDir: string;
  /** 0: no limit. */
  readonly maxObjectBytes: number;
  /** Whether objects have to be recognised as sound by git's fsck rules. */
  readonly fsck: boolean;
}

/** A pack whose completeness hangs on a few commits outside it. Object ids in hexadecimal. */
export interface PackClosure {
  /** The pack's. All that they and its tags reach is there if all that the boundary reaches is. */
  readonly commits: readonly string[];
  /** The pack's annotated ones. */
  readonly tags: readonly string[];
  /** Commits and tags outside the pack. */
  readonly boundary: readonly string[];
}

export type Verdict =
  | {
      readonly kind: 'indexed';
      readonly name: string;
      readonly objectCount: number;
      readonly sizeBytes: number;
      /** Absent when it was not plain: git has to walk then. */
      readonly closure?: PackClosure;
    }
  /** Certain: an object is larger than `maxObjectBytes`. */
  | { readonly kind: 'too-large'; readonly objectBytes: number }
  /** Anything else: git shall judge. `reason` is for the log. */
  | { readonly kind: 'undecided'; readonly reason: string };

export interface WorkerConfiguration {
  /** Cap on the private memory that comes on top of Node's own, in bytes (RLIMIT_DATA). */
  readonly memoryLimitBytes: number;
  /** Names to look for libgit2 under; the usual ones when absent. */
  readonly libraryNames?: readonly string[];
}

export type ToWorker =
  | { readonly type: 'configure'; readonly configuration: WorkerConfiguration }
  | { readonly type: 'index'; readonly job: IndexJob };

export type FromWorker =
  | { readonly type: 'ready'; readonly version: string }
  | { readonly type: 'no-library' }
  | {
      readonly type: 'verdict';
      readonly id: number;
      readonly verdict: Verdict;
      /** The worker ends now, since the pack left it large; another takes its place. */
      readonly retiring: boolean;
    };
