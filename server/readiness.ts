import type { Clock } from '../backends/contract/environment.js';
import { asQuorateError } from '../backends/contract/errors.js';
import type { PastReads } from '../backends/contract/past-reads.js';
import type { GitRunner } from '../backends/git/git-runner.js';
import type { DiskWatch } from '../backends/local/disk-watch.js';
import type { Config } from './config.js';

/** A probe waits so long for the disk, and then goes by what was found before: less than probes are given. */
const diskWaitMs = 1_000;

/** For readiness: rejects when a disk takes nothing, is full, or hangs. */
export async function checkStorage(disk: Pick<DiskWatch, 'look'>): Promise<void> {
  const finding = await disk.look(diskWaitMs);
  if (finding !== undefined) throw new Error(finding.problem);
}

/** For readiness: rejects with the reason when this process is no member of its cluster in truth. */
export async function checkMembership(stranger: () => string | undefined): Promise<void> {
  const reason = stranger();
  return reason === undefined ? Promise.resolve() : Promise.reject(new Error(reason));
}

/** For how long one start of git tells; probes come every few seconds, from several places. */
const gitToldMs = 5_000;
/** A machine that is too busy to start git for some seconds is not broken; after this it is as good as. */
const gitTimeoutMs = 20_000;
/** A probe waits so long for a start, and then goes by the one before: less than probes are given. */
const gitWaitMs = 1_000;

/**
 * For readiness: rejects when git cannot be started, since it is gone or the processes that start it are. Made once git
 * has run. Starts one git in five seconds at most, beside the queues of those that serve requests.
 */
export function createGitCheck({
  git,
  clock,
}: {
  readonly git: Pick<GitRunner, 'converse'>;
  readonly clock: Clock;
}): () => Promise<void> {
  let problem: string | undefined;
  let startedMs = clock.monotonicMs();
  let running: Promise<void> | undefined;
  const start = async (): Promise<void> => {
    problem = await gitProblem(git);
    running = undefined;
  };
  return async () => {
    if (running === undefined && clock.monotonicMs() - startedMs >= gitToldMs) {
      startedMs = clock.monotonicMs();
      running = start();
    }
    if (running !== undefined) {
      const waited = new AbortController();
      await Promise.race([running, clock.sleep(gitWaitMs, waited.signal)]);
      waited.abort();
    }
    if (running !== undefined && clock.monotonicMs() - startedMs > gitTimeoutMs) {
      throw new Error(`git has not started for ${gitTimeoutMs / 1000} s`);
    }
    if (problem !== undefined) throw new Error(problem);
  };
}

/** A conversation, since those do not queue behind runs that take their time. */
async function gitProblem(git: Pick<GitRunner, 'converse'>): Promise<string | undefined> {
  try {
    const run = await git.converse({ args: ['version'], timeoutMs: gitTimeoutMs });
    run.end();
    run.stdout.resume();
    const { exitCode } = await run.exited;
    return exitCode === 0 ? undefined : 'git does not run';
  } catch (error) {
    const { code, message } = asQuorateError(error);
    // As many as there may be are running.
    return code === 'resource-exhausted' ? undefined : message;
  }
}

/**
 * What is missing while the coordinator is lost and eventual reads go on. Where reads are strong unless a repository
 * says otherwise, other front-ends may do better, and this one is not ready.
 */
export function servingWithoutCoordinator({
  config,
  past,
}: {
  readonly config: Config;
  readonly past?: PastReads;
}): string | undefined {
  const lostForMs = past?.lostForMs;
  if (lostForMs === undefined || config['replication.readConsistency'] !== 'eventual') {
    return undefined;
  }
  if (lostForMs > config['replication.readsWithoutCoordinator']) return undefined;
  return `the coordinator has not answered for ${Math.ceil(lostForMs / 1000)} s: only eventual reads are served`;
}
