import { spawn } from 'node:child_process';
import { open } from 'node:fs/promises';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** Environment of every git that the benchmarks run as a client: nobody's configuration, no prompts. */
export const clientEnvironment: Readonly<Record<string, string>> = {
  PATH: process.env['PATH'] ?? '',
  HOME: '/nonexistent',
  LC_ALL: 'C',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_TERMINAL_PROMPT: '0',
  GIT_AUTHOR_NAME: 'Bench',
  GIT_AUTHOR_EMAIL: 'bench@example.org',
  GIT_COMMITTER_NAME: 'Bench',
  GIT_COMMITTER_EMAIL: 'bench@example.org',
};

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** It is killed after this, and the promise rejects. Default 10 minutes. */
  readonly timeoutMs?: number;
  /** Which of its two outputs is wanted. Default `stdout`. */
  readonly output?: 'stdout' | 'stderr';
}

/** Runs a program to its end and resolves with its output, trimmed; rejects with its stderr when it fails. */
export async function run(
  program: string,
  args: readonly string[],
  { cwd, env, input = '', timeoutMs = 600_000, output = 'stdout' }: RunOptions = {},
): Promise<string> {
  const child = spawn(program, args, {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...clientEnvironment, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const results: Buffer[] = [];
  const errors: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => results.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code === 0) {
    return Buffer.concat(output === 'stdout' ? results : errors)
      .toString('utf8')
      .trim();
  }
  throw new Error(`${program} ${args.join(' ')}: ${Buffer.concat(errors).toString('utf8')}`);
}

export function git(args: readonly string[], options: RunOptions = {}): Promise<string> {
  return run('git', args, options);
}

/** Process groups of the servers that run. */
const running = new Set<number>();

/** Ends all servers at once, without waiting: for when the benchmark itself is ended. */
export function killDaemons(): void {
  for (const pid of running) signalGroup(pid, 'SIGKILL');
}

/** To the whole group: fcgiwrap leaves its workers behind when only it is told to end. */
function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended.
  }
}

/** A server that the benchmark started; what it says goes to a file. */
export interface Daemon {
  readonly pid: number;
  stop(): Promise<void>;
}

export async function startDaemon(
  program: string,
  args: readonly string[],
  options: { readonly logFile: string; readonly env?: Readonly<Record<string, string>> },
): Promise<Daemon> {
  const log = await open(options.logFile, 'a');
  const child = spawn(program, args, {
    env: { ...clientEnvironment, ...options.env },
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  await log.close();
  const { pid } = child;
  if (pid === undefined) throw new Error(`${program} did not start`);
  running.add(pid);
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
  });
  return {
    pid,
    stop: async () => {
      signalGroup(pid, 'SIGTERM');
      const grace = new AbortController();
      await Promise.race([
        exited,
        delay(10_000, undefined, { signal: grace.signal }).catch(() => undefined),
      ]);
      grace.abort();
      signalGroup(pid, 'SIGKILL');
      await exited;
      running.delete(pid);
    },
  };
}

/** A loopback port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => {
    server.close(resolve);
  });
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Waits, bounded, until something listens. */
export async function waitForPort(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const connected = await new Promise<boolean>((resolve) => {
      const socket = net.connect(port, '127.0.0.1', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
    if (connected) return;
    await delay(50);
  }
  throw new Error(`nothing listens on port ${port}`);
}
