import path from 'node:path';
import type { Logger } from '../backends/contract/environment.js';
import type { TakeFileSteps } from '../backends/git/file-steps.js';
import { FileThreads } from '../backends/git/file-threads/file-threads.js';
import type { GitRunner } from '../backends/git/git-runner.js';
import { createPackIndexer } from '../backends/git/indexer.js';
import type { PackIndexer } from '../backends/git/pack-indexer.js';
import { startGitRunner } from '../backends/git/runner.js';
import type { Config } from './config.js';
import type { DataDirectory } from './data-directory.js';
import { gitLimits } from './listener-limits.js';
import type { Metrics } from './observe/metrics.js';
import type { Teardown } from './teardown.js';

/** What works on repositories for this process, in processes and threads of its own. */
export interface GitEngine {
  readonly git: GitRunner;
  /** Where this process keeps repositories in a store. */
  readonly store: { readonly indexer: PackIndexer; readonly files: TakeFileSteps } | undefined;
}

export interface GitEngineParts {
  readonly config: Config;
  readonly data: DataDirectory;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly teardown: Teardown;
}

/**
 * Starts its processes; the data directory is locked. They take some tenths of a second until the engine is `ready`, in
 * which whoever called loads the rest of the server. Either rejects with `unavailable` when git cannot be run or is too
 * old.
 */
export async function startGitEngine(
  parts: GitEngineParts,
): Promise<{ readonly ready: Promise<GitEngine> }> {
  const { config, data, logger, metrics, teardown } = parts;
  const starting = startGitRunner({
    logger,
    meter: metrics,
    runDirectory: path.join(data.path, 'run'),
    limits: gitLimits(config['limits.gitProcesses']),
  });
  const git = starting.then(({ ready }) => ready);
  closeOnceStarted(teardown, 'git', git);
  const ready = keepsStore(config) ? withStore(parts, git) : withoutStore(git);
  // Whoever waits for it is told; by then it may have failed long ago.
  ready.catch(() => undefined);
  await starting;
  return { ready };
}

function keepsStore({ backend, role }: Config): boolean {
  return backend === 'local' && role !== 'front-end';
}

async function withoutStore(git: Promise<GitRunner>): Promise<GitEngine> {
  return { git: await git, store: undefined };
}

async function withStore(
  { config, logger, metrics, teardown }: GitEngineParts,
  git: Promise<GitRunner>,
): Promise<GitEngine> {
  const fileThreads = new FileThreads({ threads: config['store.threads'], logger });
  teardown.add('file threads', () => fileThreads.close());
  const files = fileThreads.take;
  const starting = createPackIndexer({
    git,
    logger,
    meter: metrics,
    files,
    gitMemoryBytes: config['limits.indexMemory'],
  });
  closeOnceStarted(teardown, 'pack indexer', starting);
  const [runner, indexer] = await Promise.all([git, starting]);
  return { git: runner, store: { indexer, files } };
}

/** A start that failed has left nothing to close. */
function closeOnceStarted(
  teardown: Teardown,
  name: string,
  starting: Promise<{ close(): Promise<void> }>,
): void {
  teardown.add(name, async () => {
    const started = await starting.catch(() => undefined);
    await started?.close();
  });
}
