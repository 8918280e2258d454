/**
 * A spawn helper: a small process that starts git for the server, since fork() costs time in proportion to the memory
 * of the process that calls it (2.5 ms at 60 MB, 96 ms at 1 GB). No byte of git's output passes through here: the
 * helper connects sockets to the server, gives them to git as its standard streams and closes its own copies.
 *
 * It lives as long as its IPC channel. When the server dies, even by SIGKILL, it ends what it started and exits.
 */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { constants, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { dirname } from 'node:path';
import {
  isToHelper,
  runLockVariable,
  socketVariable,
  type FromHelper,
  type SpawnMessage,
} from './messages.js';

/** git removes its lock files on SIGTERM; that takes milliseconds, and a disk that hangs must not keep us. */
const killGraceMs = 5_000;
/** The same when the server is gone: the next one waits for us. */
const orphanGraceMs = 2_000;
const orphanPollMs = 10;
interface Job {
  readonly message: SpawnMessage;
  cancelled: boolean;
  child?: ChildProcess;
}

const socketPath = process.env[socketVariable] ?? '';
const lockPath = process.env[runLockVariable] ?? '';
if (socketPath === '') throw new Error('this program is started by the Quorate server only');
const jobs = new Map<number, Job>();
/** Groups that got SIGTERM and will get SIGKILL. */
const dying = new Map<number, NodeJS.Timeout>();
let orphaned = false;

/** Held open by this helper and by every child: the next server knows by it that all of us are gone. */
const runLock =
  lockPath === '' ? undefined : openSync(lockPath, constants.O_RDONLY | constants.O_NONBLOCK);

function send(message: FromHelper): void {
  // The channel may be closing; then nobody is left to tell.
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

/** Signals a process group; false when no process is left in it. */
function signalGroup(pid: number, signal: 'SIGTERM' | 'SIGKILL'): boolean {
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}

function endGroup(pid: number): void {
  if (dying.has(pid)) return;
  if (!signalGroup(pid, 'SIGTERM')) return;
  const timer = setTimeout(
    () => {
      dying.delete(pid);
      signalGroup(pid, 'SIGKILL');
    },
    orphaned ? orphanGraceMs : killGraceMs,
  );
  dying.set(pid, timer);
}

/** A connection to the server that has told its token and from which this process never reads. Its owner is `made`. */
function connect(tokenHex: string, made: Socket[]): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = new Socket();
    made.push(socket);
    // Paused before it connects, so that no byte meant for git is read here.
    socket.pause();
    socket.on('error', reject);
    socket.connect({ path: socketPath }, () => {
      socket.write(Buffer.from(tokenHex, 'hex'), (error) => {
        if (error === undefined || error === null) resolve(socket);
        else reject(error);
      });
    });
  });
}

async function start(job: Job): Promise<void> {
  const { message } = job;
  const { tokens } = message;
  // Also those beside one that fails: what has no more files would never have them again.
  const made: Socket[] = [];
  try {
    const sockets = await Promise.all([
      tokens.stdin === undefined ? undefined : connect(tokens.stdin, made),
      connect(tokens.stdout, made),
      connect(tokens.stderr, made),
    ]);
    if (job.cancelled || orphaned)
      throw Object.assign(new Error('cancelled'), { code: 'ECANCELED' });
    const [stdin, stdout, stderr] = sockets;
    const stdio: StdioOptions = [stdin ?? 'ignore', stdout, stderr];
    if (runLock !== undefined && !message.leaveDescendants) stdio.push(runLock);
    const child = spawn(message.file, message.args, {
      cwd: message.cwd,
      env: message.env,
      stdio,
      // A group of its own: git's children (pack-objects, hooks) are reached by the same signal.
      detached: true,
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
      job.child = child;
      child.once('exit', (exitCode, signal) => ended(job, exitCode, signal));
    });
    if (child.pid === undefined) return;
    send({ type: 'spawned', job: message.job, pid: child.pid });
    if (job.cancelled || orphaned) endGroup(child.pid);
  } finally {
    for (const socket of made) socket.destroy();
  }
}

function run(message: SpawnMessage): void {
  const job: Job = { message, cancelled: false };
  jobs.set(message.job, job);
  start(job).catch((error: unknown) => {
    jobs.delete(message.job);
    send({ type: 'failed', job: message.job, code: errorCode(error) });
    leaveIfDone();
  });
}

function ended(job: Job, exitCode: number | null, signal: string | null): void {
  const pid = job.child?.pid;
  jobs.delete(job.message.job);
  if (pid !== undefined) {
    const pending = dying.get(pid);
    // The leader is gone; what it left in its group either goes too or was promised that it may stay.
    if (pending !== undefined) {
      clearTimeout(pending);
      dying.delete(pid);
      endGroup(pid);
    } else if (!job.message.leaveDescendants || signal !== null) {
      endGroup(pid);
    }
  }
  send({ type: 'exit', job: job.message.job, exitCode, signal });
  leaveIfDone();
}

function kill(jobId: number): void {
  const job = jobs.get(jobId);
  if (job === undefined) return;
  job.cancelled = true;
  const pid = job.child?.pid;
  if (pid !== undefined) endGroup(pid);
}

function errorCode(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'code' in error) return String(error.code);
  return 'EUNKNOWN';
}

/** The server is gone: nobody will read what the children write, so they end now. */
function abandon(): void {
  orphaned = true;
  for (const [jobId] of jobs) kill(jobId);
  setTimeout(leave, orphanGraceMs);
  // What is left of a group after its leader tells nobody when it ends.
  setInterval(leaveIfDone, orphanPollMs);
}

function leaveIfDone(): void {
  if (orphaned && jobs.size === 0 && [...dying.keys()].every((pid) => !groupLives(pid))) leave();
}

function groupLives(pid: number): boolean {
  try {
    process.kill(-pid, 0);
    return true;
  } catch {
    return false;
  }
}

function leave(): void {
  for (const job of jobs.values()) {
    if (job.child?.pid !== undefined) signalGroup(job.child.pid, 'SIGKILL');
  }
  for (const pid of dying.keys()) signalGroup(pid, 'SIGKILL');
  // The server removes its directory itself when it closes in order; this is for the one that could not.
  rmSync(dirname(socketPath), { recursive: true, force: true });
  process.exit(0);
}

// A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group; the server drains first and needs us.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

process.on('disconnect', abandon);
process.on('message', (message: unknown) => {
  if (!isToHelper(message)) return;
  if (message.type === 'spawn') run(message);
  else kill(message.job);
});
send({ type: 'ready' });
