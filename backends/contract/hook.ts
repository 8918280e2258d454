/** Programs that administrators put in a push's way: git's `pre-receive`, `update` and `post-receive` (githooks(5)). */

export const hookStages = ['pre-receive', 'update', 'post-receive'] as const;
export type HookStage = (typeof hookStages)[number];

/** An executable file, found by what is in it. */
export interface HookProgram {
  /** SHA-256 of the content, lower-case hexadecimal. */
  readonly digest: string;
  /** Asked only where the program is not yet. */
  readonly content: () => Promise<Uint8Array>;
}

export interface HookLimits {
  readonly timeoutMs: number;
  /** Of stdout and stderr together. */
  readonly maxOutputBytes: number;
  /** In the hook's process group, itself included. */
  readonly maxProcesses: number;
}

export interface HookRun {
  readonly program: HookProgram;
  readonly args: readonly string[];
  readonly stdin: Uint8Array;
  /**
   * Added to a fixed minimal environment and to what says where the repository and the push's objects are: GIT_DIR,
   * GIT_QUARANTINE_PATH, GIT_OBJECT_DIRECTORY, GIT_ALTERNATE_OBJECT_DIRECTORIES. Nothing of the server's own.
   */
  readonly env: Readonly<Record<string, string>>;
  readonly limits: HookLimits;
  /** What it writes, stdout and stderr alike, as it comes. Must not throw. */
  readonly output: (bytes: Uint8Array) => void;
  readonly signal: AbortSignal;
}

/** How a hook ended. Everything that it started is gone by then. */
export type HookEnd =
  | { readonly how: 'exited'; readonly exitCode: number }
  /** By a signal that was not ours. */
  | { readonly how: 'killed'; readonly signal: string }
  /** It went past a bound, and was ended with all its processes. */
  | { readonly how: 'too-long' | 'too-much-output' | 'too-many-processes' }
  /** The caller gave up. */
  | { readonly how: 'cancelled' };

/** Runs a hook where the push's objects are. Errors: `unavailable` (it could not be started), `storage-failure`. */
export type RunHook = (run: HookRun) => Promise<HookEnd>;
