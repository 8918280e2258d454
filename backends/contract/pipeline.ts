import type { RunHook } from './hook.js';
import type { Inspect } from './inspection.js';
import type { RefCommand } from './objects.js';
import type { LogEntry, Repository } from './repository.js';

/** Who pushes, as far as rules want to know. */
export interface Pusher {
  /** User name, `deploy-key:SHA256:...`, `oidc:NAME:SUBJECT`, or `anonymous`, `trusted`, `system`. */
  readonly name: string;
  /** What rules may call it besides: `oidc:NAME` of each issuer's entry that vouches for the token. */
  readonly aliases?: readonly string[];
  /** Names of the groups, without `@`. */
  readonly groups: readonly string[];
}

/** What the stages before the commit are told. */
export interface PushContext {
  readonly repository: Repository;
  readonly pushId: string;
  readonly actor: string;
  readonly pusher: Pusher;
  readonly pushOptions: readonly string[];
  /** Updates that are still in the race, judged at the basis. */
  readonly commands: readonly RefCommand[];
  /** Those of them that are no fast-forward. Walks history: ask only when a rule wants to know. */
  readonly nonFastForwards: () => Promise<ReadonlySet<string>>;
  /** Reads the new objects: ask only when a rule wants to know. */
  readonly inspect: Inspect;
  /** Runs a program in view of the new objects. */
  readonly runHook: RunHook;
  /** Branch that HEAD names at the basis, full name; undefined when detached. */
  readonly currentBranch: string | undefined;
  readonly progress: (text: Uint8Array) => void;
  readonly signal: AbortSignal;
  /** Bytes that the push would add to the store; 0 when it brings no pack. */
  readonly packBytes: number;
}

/** How much of a pack is taken. */
export interface PackAllowance {
  /** At least what a pack without objects has. */
  readonly maxPackBytes: number;
  /** Refuses a larger one: counts and logs it, and says what the pusher is told. */
  refuse(): string;
  /** A line for the pusher's terminal, when little is left already. A push that is judged with its pack is told there. */
  readonly warning: string | undefined;
  /** To be called once when the push is over; `committed` is false too when nobody knows. Never fails. */
  settle(pushId: string, committed: boolean): Promise<void>;
}

/** What post-receive is told. It comes from the outbox: at least once, after the commit, never in its way. */
export interface CommittedPush {
  readonly repositoryId: string;
  /** With its updates, unless they were too large for the log and the push was another process's. */
  readonly entry: LogEntry;
  /** What `PushJudges.nobodyToTell` said, of a push that was committed just now: who is to be told is not read again. */
  readonly nobodyToTell?: boolean;
  /** Runs a program in the repository. */
  readonly runHook: RunHook;
  /** Text for the pusher, as long as one is waiting; afterwards it goes nowhere. */
  readonly progress: (text: Uint8Array) => void;
  /** Aborted when the server closes: what was not done is done again after the next start. */
  readonly signal: AbortSignal;
}

/**
 * What happened to a repository itself. A change of HEAD is not among them: it is a log entry, which `postReceive` is
 * told of.
 */
export type RepositoryChange =
  | { readonly action: 'created' }
  | { readonly action: 'renamed'; readonly from: string }
  | { readonly action: 'deleted' }
  | {
      readonly action: 'changed';
      /** Present when it was changed: anonymous read, as it is now. */
      readonly public?: boolean | undefined;
      /** Settings that were changed; null: back at the default. */
      readonly settings?: Readonly<Record<string, string | null>> | undefined;
    };

/** A durable change of a repository's record. Told at least once, after the change. */
export interface RepositoryEvent {
  readonly repositoryId: string;
  /** After the change. */
  readonly name: string;
  /** The record's version that the change made: with the id it names the event for ever. */
  readonly epoch: number;
  /** User name, or `anonymous` / `system`. */
  readonly actor: string;
  readonly atMs: number;
  readonly change: RepositoryChange;
}

export interface RenamedIds {
  readonly from: string;
  readonly to: string;
}

/** The stages that judge one push. */
export interface PushJudges {
  /** Refuses the whole push: the reason for every ref, or undefined to let it pass. */
  preReceive(context: PushContext): Promise<string | undefined>;
  /** Refuses single refs: ref -> text of the `ng` line. */
  update(context: PushContext): Promise<ReadonlyMap<string, string>>;
  /** True when `postReceive` may have something to tell the pusher, who then waits a little for it. */
  talksAfterCommit(): Promise<boolean>;
  /** True when nobody is to be told by `postReceive`, as of the push's locks, which no hook has held up since. */
  nobodyToTell?(): Promise<boolean>;
  /**
   * To be called once when the push is over, where it had no allowance to settle. Undefined when there is nothing to do.
   * Never fails.
   */
  settle?(pushId: string, committed: boolean): Promise<void> | undefined;
}

/** The stages of a push, implemented in `hooks/`. A stage runs at least once; none may push to its own repository. */
export interface PushPipeline {
  /** Before a pack is read; undefined: as much as the repository's settings allow. */
  allowance(repository: Repository): Promise<PackAllowance | undefined>;
  /**
   * Begins to ask for the allowance of a push before it is known whether the repository is this one, and who pushes.
   * What is returned is `allowance`, as of now or later.
   */
  foreseeAllowance?(repository: Pick<Repository, 'id' | 'name'>): PushPipeline['allowance'];
  /**
   * To be called when the push holds its locks: what it is judged by is read from then on, all of it at once, while the
   * stores prepare. A push that is judged again is judged by what is in force then.
   */
  judges(repository: Repository): PushJudges;
  /** After the commit point. Failing is logged and retried; it cannot fail the push. */
  postReceive(push: CommittedPush): Promise<void>;
  /** After a repository was created, changed, renamed or deleted. Failing is logged and retried. */
  repositoryChanged(event: RepositoryEvent): Promise<void>;
  /**
   * When a repository was deleted, and again before its last record goes: what was kept about it elsewhere goes first.
   * At least once, by whoever removes it; what fails is logged and tried again, since the record stays. The directory
   * backend, whose ids are names, tells it also before a name is taken.
   */
  repositoryGone(repository: Pick<Repository, 'id' | 'name'>): Promise<void>;
  /**
   * Told by the directory backend only: the repository with the id `from` will have the id `to`, unless that fails
   * (then `to` is gone). What refuses pushes holds for both from now on. Idempotent.
   */
  repositoryRenaming(ids: RenamedIds): Promise<void>;
  /** It has the id `to`: the rest of what is kept about `from` goes there, before `from` is gone. Idempotent. */
  repositoryRenamed(ids: RenamedIds): Promise<void>;
}
