import type { Head, ObjectFormat, Oid, RefCommand } from './objects.js';
import type { StoredSettings } from './settings.js';
import type { VisibleRefs } from './visible-refs.js';

export type AccessLevel = 'read' | 'write' | 'admin';

/** Who may do what; judged by `server/auth`, stored with the repository so that it changes and dies with it. */
export interface RepositoryAccess {
  /** Anonymous read. */
  readonly public: boolean;
  /** User name -> level. A level includes the ones below it. */
  readonly grants: Readonly<Record<string, AccessLevel>>;
}

export interface Repository {
  /** Opaque, never reused. The directory backend uses the path. */
  readonly id: string;
  /** Path below the server's root, without `.git`: `team/app`. */
  readonly name: string;
  readonly objectFormat: ObjectFormat;
  readonly settings: StoredSettings;
  readonly access: RepositoryAccess;
  readonly createdAtMs: number;
  /** Version of this record; every change adds one. */
  readonly epoch: number;
  /** Set on what `getForReading` remembered: for how long the coordinator has not answered. */
  readonly recalled?: { readonly lostForMs: number };
  /** Set by the directory backend, where a path may become another repository's: which directory it is, for ever. */
  readonly directory?: string;
}

/**
 * A repository by its id; or as it was opened, so that nothing meant for it is done to another one that has its id by
 * now (directory backend): that is `not-found`.
 */
export type RepositoryOrId = string | Pick<Repository, 'id' | 'directory'>;

export function repositoryIdOf(repository: RepositoryOrId): string {
  return typeof repository === 'string' ? repository : repository.id;
}

/** Whether both are one repository. */
export function isSameRepository(
  one: Pick<Repository, 'id' | 'directory'>,
  other: Pick<Repository, 'id' | 'directory'>,
): boolean {
  return one.id === other.id && one.directory === other.directory;
}

export interface NewRepository {
  readonly name: string;
  /** Branch that HEAD names, short: `main`. */
  readonly defaultBranch: string;
  readonly objectFormat: ObjectFormat;
  readonly settings: StoredSettings;
  readonly access: RepositoryAccess;
}

export interface NewFork {
  readonly name: string;
  readonly access: RepositoryAccess;
  /** Refs of the source that the fork gets. */
  readonly visible: VisibleRefs;
}

/** Fields given replace the stored ones; a setting of `null` goes back to its default. */
export interface RepositoryPatch {
  readonly settings?: Readonly<Record<string, string | null>>;
  readonly access?: RepositoryAccess;
}

export interface RepositoryStats {
  readonly head: Head;
  readonly generation: number;
  readonly refCount: number;
  readonly packCount: number;
  readonly looseObjectCount: number;
  /** Objects that are this repository's alone. */
  readonly sizeBytes: number;
  /** Objects that it shares with forks, its own source among them; not in `sizeBytes`. 0 when it shares none. */
  readonly sharedBytes: number;
  /** Repositories that share them, this one included; absent when it shares none. */
  readonly sharedBy?: number;
}

/**
 * The registry. Names are validated by `server/core/repository-name.ts` before they get here; implementations still
 * refuse anything that would leave their root. All mutations are durable on return, and all-or-nothing across a crash.
 * `by` is the name of who makes the change, for what is told of it afterwards (default: `system`).
 */
export interface RepositoryRegistry {
  /** `already-exists` when the name is taken, or when it and an existing one would nest (`a` beside `a/b`). */
  create(repository: NewRepository, by?: string): Promise<Repository>;
  /**
   * A repository of its own with the refs and the objects of `source` as of now, in a time that does not grow with the
   * objects: both borrow them from a pool. It outlives its source. Settings, rules and hooks are not taken over.
   * `already-exists` as for `create`, `not-found` when the source is gone, `unimplemented` without the capability.
   */
  fork(source: Repository, fork: NewFork, by?: string): Promise<Repository>;
  /** Undefined when there is none. Linearizable. */
  get(name: string): Promise<Repository | undefined>;
  /** As `get`, for a push: what that will ask next is asked at the same time, where that saves something. */
  getForPushing?(name: string): Promise<Repository | undefined>;
  /**
   * As `get`, for a request that only reads. While the coordinator cannot be reached, a repository whose reads are
   * eventual is what this process read of it last (`recalled`), if that is not too long ago. With the option
   * `recalled`, who asks was found out in the same way, and nothing else will do. `unavailable` otherwise.
   * With `refs`, one strong read of the refs follows within the same request: what it will ask is asked at the same
   * time, where that saves something.
   */
  getForReading(
    name: string,
    options?: { readonly recalled?: boolean; readonly refs?: boolean },
  ): Promise<Repository | undefined>;
  /**
   * In name order, names strictly after `after`. Fewer than `limit` only where none are left; what is renamed meanwhile
   * may be missing.
   */
  list(page: {
    readonly prefix?: string;
    readonly after?: string;
    readonly limit: number;
  }): Promise<readonly Repository[]>;
  /** Retries lost races by itself. `not-found` when it is gone. */
  update(
    repository: RepositoryOrId,
    change: (current: Repository) => RepositoryPatch,
    by?: string,
  ): Promise<Repository>;
  /** Instant in the local backend. `already-exists` as for `create`. Requests that run keep the repository they opened. */
  rename(repository: RepositoryOrId, name: string, by?: string): Promise<Repository>;
  /**
   * Pushes that have not committed fail; reads that run finish. The name is free at once; the files go in the background.
   * `isForgotten` is false when what was kept about it elsewhere (`PushPipeline.repositoryGone`) could not be removed
   * yet: that is tried again in the background. Nothing of it ever applies to another repository.
   * With `unlessPushed` it is `failed-precondition` when anything was pushed to it, until the last moment. (The directory
   * backend says so of what other tools push as far as the files tell.)
   */
  delete(
    repository: RepositoryOrId,
    by?: string,
    options?: { readonly unlessPushed?: boolean },
  ): Promise<{ readonly isForgotten: boolean }>;
  /** Points HEAD at a branch (born or not): a log entry of its own. `branch` is a full ref name under `refs/heads/`. */
  setHead(repository: RepositoryOrId, branch: string, by?: string): Promise<void>;
  stats(repository: RepositoryOrId): Promise<RepositoryStats>;
  /**
   * Runs `write`, which keeps something by the repository's id elsewhere, or removes it (rules, hooks, deploy keys, a
   * quota), while no name changes. `not-found`, and `write` is not run, when the repository is gone, where another one
   * may have its id then (directory backend). `write` must not call the registry's other changes: they would wait for it.
   */
  whileNamed<T>(repository: Repository, write: () => Promise<T>): Promise<T>;
}

/** What a log entry changes. A HEAD change is an entry of its own and has no updates. */
export interface LogEntry {
  readonly generation: number;
  readonly pushId: string;
  readonly updates: readonly RefCommand[];
  /** Set when the updates were too large for the log: SHA-256 of what the voters keep; `updates` is empty then. */
  readonly updatesDigest?: string;
  readonly head?: { readonly old: Head; readonly new: Head };
  /**
   * Set when the entry follows an earlier generation than the one before it: those in between were lost with the stores
   * that had them, and overruled. `digest` is that generation's.
   */
  readonly after?: { readonly generation: number; readonly digest: string };
  /** Store ids of the voters whose *prepared* was counted. */
  readonly prepared: readonly string[];
  /** Digest of the refs after this entry (`backends/git/digest.ts`), 128 hexadecimal digits. */
  readonly digest: string;
  /** Push options, for post-receive; absent when there were none, or too many for the log. */
  readonly pushOptions?: readonly string[];
  /** User name, or `anonymous` / `system`. */
  readonly actor: string;
  readonly atMs: number;
}

export interface HeadRecord {
  readonly generation: number;
  readonly digest: string;
}

export type RefOutcome =
  | { readonly ref: string; readonly status: 'ok'; readonly oldOid: Oid; readonly newOid: Oid }
  /** `reason` is the text of the `ng` line. */
  | { readonly ref: string; readonly status: 'refused'; readonly reason: string };
