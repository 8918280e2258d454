import { readdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { whileKept } from './kept-objects.js';
import { troubleIn } from './machine-trouble.js';
import { openFilesIn } from './process-group.js';
import type { GitCommand, GitResult, GitRunner } from './git-runner.js';

/** How a step of maintenance runs git. */
export interface MaintenanceContext {
  readonly git: GitRunner;
  /** A bare repository. */
  readonly gitDir: string;
  readonly signal: AbortSignal;
  /** Niced (default). `quorate repo maintain` is niced as well; only tests are in a hurry. */
  readonly background?: boolean;
}

/** Two hours repack tens of gigabytes on two threads; a run that takes longer is stuck. */
const STEP_TIMEOUT_MS = 7_200_000;
/** Twice the window memory for each thread, and the object tables of some ten million objects. */
const MEMORY_LIMIT_BYTES = 4 * 1024 ** 3;

/** Runs git in the repository, niced and bounded. Throws `cancelled`, or `data-corrupt` / `storage-failure`. */
export async function runMaintenanceGit(
  context: MaintenanceContext,
  command: GitCommand & { readonly maxStdoutBytes?: number },
): Promise<GitResult> {
  const result = await context.git.run({
    ...command,
    env: { GIT_DIR: context.gitDir, ...command.env },
    config: {
      'core.fsync': 'committed',
      'core.fsyncMethod': 'fsync',
      'pack.threads': '2',
      'pack.windowMemory': '256m',
      'pack.deltaCacheSize': '64m',
      'pack.writeReverseIndex': 'true',
      ...command.config,
    },
    signal: context.signal,
    timeoutMs: STEP_TIMEOUT_MS,
    background: context.background ?? true,
    memoryLimitBytes: MEMORY_LIMIT_BYTES,
  });
  if (context.signal.aborted) throw new QuorateError('cancelled', 'maintenance was stopped');
  // What git could not open it takes for absent, and exits 0.
  const trouble = troubleIn(result);
  if (result.exitCode !== 0 || trouble.trouble !== undefined) {
    throw new QuorateError('storage-failure', `git ${command.args[0]} failed in maintenance`, {
      details: {
        exitCode: result.exitCode,
        signal: result.signal,
        stderr: result.stderr,
        ...trouble,
      },
    });
  }
  return result;
}

/**
 * Runs `git repack`; one that was stopped or failed leaves nothing. What it had written until then has an index, so
 * that git takes it for packs: the next repack would fail on them, and clients would be told of their bitmaps. Durable
 * on return. The caller runs one at a time on these objects.
 */
export async function runRepack(
  context: MaintenanceContext,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  const objectsDir = env['GIT_OBJECT_DIRECTORY'] ?? join(context.gitDir, 'objects');
  const packs = join(objectsDir, 'pack');
  await removeInterruptedRepack(packs);
  await whileKept(objectsDir, async () => {
    const before = new Set(await readdir(packs));
    try {
      await runMaintenanceGit(context, { args: ['repack', '-d', '-n', '-q', ...args], env });
    } catch (error) {
      await removeInterruptedRepack(packs);
      await removeHalfPacked(packs, before);
      throw error;
    }
  });
}

/**
 * What it was writing, which may be as large as all the repository; git leaves it behind, also when it is told to end,
 * and the next run begins another. A file that somebody has open is another's: of a hook's git, say.
 */
async function removeHalfPacked(packs: string, before: ReadonlySet<string>): Promise<void> {
  const names = await readdir(packs);
  const begun = names.filter((name) => name.startsWith('tmp_') && !before.has(name));
  if (begun.length === 0) return;
  const directory = await realpath(packs);
  const open = await openFilesIn(directory);
  for (const name of begun) {
    if (!open.has(name)) await rm(join(directory, name), { force: true });
  }
}

/** Indexes first: without, the rest counts for nothing. */
async function removeInterruptedRepack(packDirectory: string): Promise<void> {
  const names = await readdir(packDirectory);
  const left = names.filter((name) => /^\.tmp-\d+-pack-/.test(name));
  for (const isIndex of [true, false]) {
    for (const name of left) {
      if (name.endsWith('.idx') === isIndex) await rm(join(packDirectory, name), { force: true });
    }
  }
}

/**
 * The commit graph: connectivity checks, negotiation and reachability read it instead of commits. Without Bloom
 * filters (`--changed-paths`), which only `git log -- path` uses and which cost a diff per commit.
 * `added` writes a layer for new commits; `anew` drops the ones that no ref reaches any more.
 */
export async function writeCommitGraph(
  context: MaintenanceContext,
  mode: 'added' | 'anew',
): Promise<void> {
  const split = mode === 'added' ? '--split' : '--split=replace';
  try {
    await runMaintenanceGit(context, {
      args: ['commit-graph', 'write', '--reachable', split, '--no-progress'],
    });
  } catch (error) {
    if (mayHaveBeenKilled(error)) await removeGraphLocks(context.gitDir);
    throw error;
  }
}

/** Nobody else writes graphs; what a git that was killed holds no more would be in the way of every one to come. */
async function removeGraphLocks(gitDir: string): Promise<void> {
  const info = join(gitDir, 'objects', 'info');
  for (const name of ['commit-graph.lock', 'commit-graphs/commit-graph-chain.lock']) {
    await rm(join(info, name), { force: true });
  }
}

/**
 * Whether the git of `runMaintenanceGit` was ended, perhaps by SIGKILL (ours, or for want of memory or time), so that it
 * may have left locks. One that ends by itself removes its own: then they are another's.
 */
export function mayHaveBeenKilled(error: unknown): boolean {
  const { code, details } = asQuorateError(error);
  return code === 'cancelled' || typeof details['signal'] === 'string';
}
