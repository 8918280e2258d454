import { execFile } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { lstat, mkdir, readdir, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { QuorateError } from '../../contract/errors.js';
import { runLockDescriptor } from './messages.js';

/** Helpers of a killed server leave within 2 s by themselves; a disk that is busy may add some. */
const defaultWaitMs = 10_000;
/** Then git processes whose helper was killed as well are ended. */
const patienceMs = 3_000;
const pollMs = 50;

/**
 * Makes sure that no git of a previous run on `directory` is alive, and returns the path of the lock to hand to the
 * helpers of this one. Throws `unavailable` when somebody still holds it after 10 seconds: another server runs there.
 *
 * The lock is a FIFO. Helpers and their children hold it open for reading (the kernel lets go for them however they
 * die), and opening it for writing fails with ENXIO exactly when nobody does.
 */
export async function takeRunLock(directory: string, waitMs = defaultWaitMs): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, 'spawn.lock');
  await makeFifo(path);
  const startedMs = performance.now();
  let terminated = false;
  while (isHeld(path)) {
    const waitedMs = performance.now() - startedMs;
    if (waitedMs > waitMs) {
      throw new QuorateError(
        'unavailable',
        'git processes of another server are still running in this data directory',
      );
    }
    if (waitedMs > patienceMs) {
      await endLeftovers(path, terminated ? 'SIGKILL' : 'SIGTERM');
      if (!terminated) await delay(patienceMs / 2);
      terminated = true;
    }
    await delay(pollMs);
  }
  return path;
}

async function makeFifo(path: string): Promise<void> {
  const existing = await lstat(path).catch(() => undefined);
  if (existing?.isFIFO() === true) return;
  if (existing !== undefined) {
    throw new QuorateError('storage-failure', 'the run lock in the data directory is no FIFO');
  }
  await promisify(execFile)('mkfifo', ['-m', '600', '--', path]);
}

function isHeld(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENXIO') return false;
    throw error;
  }
}

/**
 * Signals git processes that outlived both the server and their helper (Linux; elsewhere they end by themselves once
 * they read or write). Nothing is signalled while a helper holds the lock: then a server is alive.
 */
async function endLeftovers(path: string, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  const holders = await lockHolders(path);
  if (holders.some((holder) => !holder.isChild)) return;
  for (const { pid } of holders) {
    try {
      process.kill(pid, signal);
    } catch {
      // Gone meanwhile.
    }
  }
}

async function lockHolders(path: string): Promise<{ pid: number; isChild: boolean }[]> {
  const lock = await stat(path);
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  const holders: { pid: number; isChild: boolean }[] = [];
  for (const pid of pids) {
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const descriptor of descriptors) {
      const link = `/proc/${pid}/fd/${descriptor}`;
      if (!(await readlink(link).catch(() => '')).endsWith('spawn.lock')) continue;
      const target = await stat(link).catch(() => undefined);
      if (target?.ino !== lock.ino || target.dev !== lock.dev) continue;
      holders.push({ pid: Number(pid), isChild: descriptor === String(runLockDescriptor) });
    }
  }
  return holders;
}
