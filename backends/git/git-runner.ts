import type { Readable } from 'node:stream';
import type { GitStream } from '../contract/backend.js';
import type { HookEnd } from '../contract/hook.js';
import type { ProgramCommand } from './program.js';

/**
 * `timeoutMs` of a git that goes at the pace of a client, or of another store: a week. Whoever waits for it knows how
 * long that is worth while (`limits.requestTime`, the patience with fills), and ends it; this ends what all have
 * forgotten. A limit on the whole of a transfer would have what is large, over a line that is slow, begun anew for ever.
 */
export const pacedTimeoutMs = 7 * 24 * 3_600_000;

/** How one git is run. Never a shell: `args` is git's argv after `git`. */
export interface GitCommand {
  readonly args: readonly string[];
  /** Working directory. Default: a directory that is no repository. */
  readonly cwd?: string;
  /** Added to the fixed minimal environment (PATH, LC_ALL=C, HOME at an empty directory, no system or global config). */
  readonly env?: Readonly<Record<string, string>>;
  /** git configuration for this run; handed over in the environment (GIT_CONFIG_COUNT), never in argv. */
  readonly config?: Readonly<Record<string, string>>;
  /**
   * Bytes, or a stream that is piped in; default: closed at once. A stream that fails ends git; one that git does not
   * read to its end is left as it is, for its owner to drain.
   */
  readonly stdin?: Uint8Array | Readable;
  readonly signal?: AbortSignal;
  /** SIGTERM, then SIGKILL to the process group after this long. Default 1 hour. */
  readonly timeoutMs?: number;
  /** Lower CPU and I/O priority (maintenance). */
  readonly background?: boolean;
  /** Cap on the process's private memory in bytes (RLIMIT_DATA). */
  readonly memoryLimitBytes?: number;
  /** Told git's stderr as it comes (progress for a pusher's terminal). Must not throw; has no back-pressure. */
  readonly onStderr?: (bytes: Uint8Array) => void;
  /** What a hook left running may outlive git (default: whatever git leaves behind is ended with it). */
  readonly leaveDescendants?: boolean;
}

/** How a git is run that answers for as long as it is fed. */
export interface ConversationCommand extends Omit<GitCommand, 'stdin'> {
  /**
   * Gives git a HEAD of its own that names no branch, and else all that is in its GIT_DIR: it is a linked working tree of
   * it (gitrepository-layout(5), `commondir`). Refs below `refs/bisect`, `refs/rewritten` and `refs/worktree` are others
   * there.
   */
  readonly ownHead?: boolean;
}

export interface GitResult {
  /** null when a signal or the timeout ended it. */
  readonly exitCode: number | null;
  /** The signal that ended it; null when none did, or when nobody saw its end (see `GitStream.exited`). */
  readonly signal: string | null;
  readonly stdout: Buffer;
  /** Last 16 KiB. */
  readonly stderr: string;
}

/** A git that answers on its stdout for as long as it is fed (`update-ref --stdin`, `cat-file --batch-check`). */
export interface GitConversation extends GitStream {
  /** Writes with back-pressure; rejects once git is gone. */
  write(bytes: Uint8Array | string): Promise<void>;
  /** Closes git's stdin. */
  end(): void;
  /** Resolves as soon as git has gone; its last words may not be read yet (`exited`). */
  readonly left: Promise<unknown>;
}

/** The only way to run git. Spawns from small helper processes, since spawning from a large one blocks its event loop. */
export interface GitRunner {
  /** `2.39.5` */
  readonly version: string;
  /**
   * Runs to the end. Rejects only when git could not be run (`unavailable`, `cancelled`; `resource-exhausted` when too
   * many wait for their turn) or its stdout passes `maxStdoutBytes` (default 64 MiB; see `isTooMuchOutput`).
   */
  run(command: GitCommand & { readonly maxStdoutBytes?: number }): Promise<GitResult>;
  /** Output is streamed; the child writes straight into the socket that `stdout` reads. */
  stream(command: GitCommand): Promise<GitStream>;
  converse(command: ConversationCommand): Promise<GitConversation>;
  /**
   * Runs a program that is not git, from the same helpers, in the same environment, within its own bounds. Rejects
   * with `unavailable` when it could not be started.
   */
  program(command: ProgramCommand): Promise<HookEnd>;
  /** Conversations that there may be at once; each of the pools of refs and objects keeps up to a quarter of them. */
  readonly conversations: number;
  /** Children running now. */
  readonly running: number;
  /** Ends all children and the helpers. */
  close(): Promise<void>;
}
