import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Oid, RefCommand } from '../contract/objects.js';
import type { Dialogue } from './conversation-pool.js';
import { type FileStep, takeFileSteps, type TakeFileSteps } from './file-steps.js';
import type { GitRunner } from './git-runner.js';
import { isZero, writeRefCommands } from './ref-commands.js';
import { RefConversations } from './ref-conversations.js';
import { RefJudge } from './ref-judge.js';
import { refConfig } from './ref-config.js';
import { dryRunRefs, type DryRun, type RefFailure } from './ref-dry-run.js';
import { RefDirectories, removeLocksOfKilled, writeHead } from './ref-files.js';
import { troubleOf } from './machine-trouble.js';
import { readValuesOnDisk } from './refs-on-disk.js';
import { readRefValues, valueOf, type RefValuesOptions } from './ref-values.js';

/** The one writer of refs. */
export interface RefTransactions {
  /**
   * Applies updates of entries that are committed in the log, in one transaction. Each ref must have its `oldOid`
   * (zeros: must not exist), or its new value already. Idempotent. Durable on return, the directories of the changed
   * refs included. Errors: `failed-precondition` (`details.refs`: those whose value is another; nothing changed),
   * `storage-failure` (after which some may have been applied: the same call completes them), `invalid-argument`,
   * `unavailable`. `restarted`: a ref that goes may have any value, since there may have been a power cut in the middle. git takes it
   * from packed-refs first and removes its file then; when only the second came to the disk, an older value of
   * packed-refs shows. `before`: steps that are taken first; `after`: those when the refs are on disk.
   */
  commitEither(gitDir: string, updates: readonly RefCommand[], how?: EitherOptions): Promise<void>;
  /** Points HEAD at a branch, born or not (full name under `refs/heads/`). Durable on return. */
  setHead(gitDir: string, branch: string): Promise<void>;
  /** Which updates git would not apply; the others it would apply all together. Changes nothing. */
  dryRun(run: DryRun): Promise<ReadonlyMap<string, RefFailure>>;
  /**
   * Whether git would apply the updates of all runs, on one repository and on different refs, as one transaction.
   * False also when it could not be asked this way: then each has to be asked for by itself.
   */
  passTogether(runs: readonly DryRun[]): Promise<boolean>;
  /** Ends the process kept for a repository. */
  release(gitDir: string): Promise<void>;
  close(): Promise<void>;
}

export interface EitherOptions {
  readonly restarted?: boolean;
  readonly before?: readonly FileStep[];
  readonly after?: readonly FileStep[];
}

export interface RefTransactionsOptions {
  readonly git: GitRunner;
  readonly clock: Clock;
  readonly files?: TakeFileSteps;
  /** Persistent processes kept (default as `ConversationPool`), each for at most `idleMs` after its last use (default 30 s). */
  readonly maxOpen?: number;
  readonly idleMs?: number;
}

export function createRefTransactions(options: RefTransactionsOptions): RefTransactions {
  const { git, clock, files = takeFileSteps } = options;
  const conversations = new RefConversations({ ...options, config: refConfig });

  const directories = new RefDirectories(files);
  const begun: Begun = new WeakSet();

  async function apply(
    gitDir: string,
    updates: readonly RefCommand[],
    after: readonly FileStep[] = [],
  ): Promise<Outcome> {
    if (updates.length === 0) return applied;
    const commands = writeRefCommands(updates);
    const outcome = await conversations.exchange(gitDir, updates, {
      talk: (dialogue) => transact(dialogue, commands, begun),
    });
    if (outcome.type === 'applied') await directories.sync(gitDir, updates, after);
    // Otherwise its locks would be in the way of every transaction to come.
    if (outcome.type === 'killed') await removeLocksOfKilled(gitDir, refsOf(updates));
    return outcome;
  }

  const judge = new RefJudge(options);

  return {
    async commitEither(gitDir, updates, how = {}) {
      const { restarted = false, before = [], after = [] } = how;
      if (before.length > 0) await files(before);
      if ((await apply(gitDir, updates, after)).type === 'applied') return;
      const expected = restarted ? 'old or new, or it goes' : 'old or new';
      const values = await assertValues({ git, gitDir }, updates, expected);
      const left = updates
        .map((update) => ({ ...update, oldOid: valueOf(values, update) }))
        .filter(({ oldOid, newOid }) => oldOid !== newOid);
      const outcome = await apply(gitDir, left);
      if (outcome.type !== 'applied') throw refsNotWritten(undefined, outcome.trouble);
      // What a run before this one had written may not be on disk yet.
      await directories.sync(gitDir, updates, after);
    },
    setHead: (gitDir, branch) => writeHead(gitDir, branch, clock),
    async dryRun(run) {
      const refs = new Set(run.updates.map(({ ref }) => ref));
      const usual = run.updates.length > 0 && refs.size === run.updates.length;
      // Nearly always nothing is wrong; only then does it take processes of its own to find out what.
      if (usual && (await judge.pass([run]))) return new Map();
      return dryRunRefs(git, run);
    },
    passTogether: (runs) => judge.pass(runs),
    release: async (gitDir) => {
      directories.forget(gitDir);
      await conversations.release(gitDir);
      await judge.release(gitDir);
    },
    close: async () => {
      await conversations.close();
      await judge.close();
    },
  };
}

/**
 * `ended`: git went on the way, and may have applied all, some or none; `killed`: that, by a signal that was seen.
 * `trouble`: what it said of the machine.
 */
type Outcome =
  | { readonly type: 'applied' }
  | { readonly type: 'ended' | 'killed'; readonly trouble: string | undefined };

const applied: Outcome = { type: 'applied' };

/** Processes that have begun their next transaction. */
type Begun = WeakSet<Dialogue>;

/**
 * One transaction, written at once and without a `prepare` of its own, which `commit` does as well; the next one is begun
 * with it. So git says all it has to say at its end, and is read once.
 */
async function transact(dialogue: Dialogue, commands: string, begun: Begun): Promise<Outcome> {
  const first = begun.has(dialogue) ? '' : 'start\0';
  begun.add(dialogue);
  await dialogue.write(`${first}${commands}commit\0start\0`).catch(ignoreEnd);
  for (const expected of ['start: ok', 'commit: ok']) {
    if ((await dialogue.readLine()) === expected) continue;
    const end = await dialogue.ended();
    return { type: end.signal === null ? 'ended' : 'killed', trouble: troubleOf(end) };
  }
  return applied;
}

/** A git that ends while it is written to says on its output, or by its exit, how far it came. */
function ignoreEnd(error: unknown): void {
  if (!(error instanceof QuorateError && error.code === 'unavailable')) throw error;
}

/** The values on disk, when they are as they should be; else `failed-precondition` with the refs that are not. */
async function assertValues(
  options: RefValuesOptions,
  updates: readonly RefCommand[],
  expected: 'old or new' | 'old or new, or it goes',
): Promise<ReadonlyMap<string, Oid>> {
  const values = await readRefValues(
    options,
    updates.map(({ ref }) => ref),
  );
  const isStale = (update: RefCommand, value: Oid): boolean => {
    if (value === update.oldOid || value === update.newOid) return false;
    return expected !== 'old or new, or it goes' || !isZero(update.newOid);
  };
  const stale = updates.filter((update) => isStale(update, valueOf(values, update)));
  if (stale.length > 0) {
    // A git that cannot open a file says that the ref has no value.
    const onDisk = await readValuesOnDisk(options.gitDir, refsOf(stale)).catch((error: unknown) => {
      throw refsNotWritten(error);
    });
    if (!stale.some((update) => isStale(update, valueOf(onDisk, update)))) {
      throw refsNotWritten(undefined, 'git did not see the refs that are on the disk');
    }
    throw new QuorateError('failed-precondition', 'a ref has another value than expected', {
      details: { refs: stale.map(({ ref }) => ref) },
    });
  }
  return values;
}

function refsOf(updates: readonly RefCommand[]): string[] {
  return updates.map(({ ref }) => ref);
}

/** `trouble`: why that says nothing of the repository. */
function refsNotWritten(cause?: unknown, trouble?: string): QuorateError {
  return new QuorateError('storage-failure', 'the refs could not be written', {
    cause,
    details: trouble === undefined ? {} : { trouble },
  });
}
