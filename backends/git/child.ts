import { once } from 'node:events';
import type { Readable } from 'node:stream';
import type { GitConversation } from './git-runner.js';
import { QuorateError } from '../contract/errors.js';
import type { Exit, Spawned } from './spawner/spawner.js';

/** Enough for git's last words. */
const stderrCapBytes = 16 * 1024;
/** After git's exit, for a stream that something else still holds open. */
const streamGraceMs = 5_000;

/** A running git: the spawned process with its timers, its signal and its capped stderr. */
export interface GitChild extends GitConversation {
  /** How the process ended, as soon as it has; `stdout` may not be read yet. */
  readonly left: Promise<Exit>;
}

export interface ChildOptions {
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number;
  readonly onStderr: ((bytes: Uint8Array) => void) | undefined;
  /** Called once, when the process has exited. */
  readonly onLeft: () => void;
}

/** Watches over a spawned git until it is gone and read. */
export function watchChild(spawned: Spawned, options: ChildOptions): GitChild {
  const { stdin, stdout, stderr } = spawned;
  let killed = false;
  let gone = false;
  const kill = (): void => {
    if (killed) return;
    killed = true;
    spawned.kill();
    // Nobody is to wait for output that the caller has given up.
    if (gone) stdout.destroy();
  };
  const timer = setTimeout(kill, options.timeoutMs);
  options.signal?.addEventListener('abort', kill);
  if (options.signal?.aborted === true) kill();
  // A reader that goes away ends the writer, even one that writes nothing for a long time.
  stdout.once('close', () => {
    if (!gone && !stdout.readableEnded) kill();
  });
  // git never writes there: this only finds out when it has closed its end.
  stdin?.resume();

  const tail = readTail(stderr, options.onStderr);
  const left = spawned.exited.then((exit) => {
    gone = true;
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', kill);
    stdin?.destroy();
    if (killed || exit.lost) stdout.destroy();
    options.onLeft();
    return exit;
  });
  const exited = left.then(async (exit) => {
    const graceTimer = setTimeout(() => stderr.destroy(), streamGraceMs);
    await Promise.all([tail, closed(stdout)]);
    clearTimeout(graceTimer);
    return { exitCode: exit.exitCode, signal: exit.signal, stderr: await tail };
  });

  return {
    stdout,
    exited,
    left,
    kill,
    write: (bytes) =>
      new Promise((resolve, reject) => {
        if (stdin === undefined || gone) reject(gitIsGone());
        else stdin.write(bytes, (error) => (error ? reject(gitIsGone()) : resolve()));
      }),
    end: () => stdin?.end(),
  };
}

/**
 * Pipes `source` into git. git that stops reading early leaves the source alone (its owner still wants to answer on
 * it); a source that fails ends git, so that it never takes a part for the whole.
 */
export function feed(source: Readable, spawned: Spawned, kill: () => void): void {
  const { stdin } = spawned;
  if (stdin === undefined) return;
  if (source.errored !== null || (source.destroyed && !source.readableEnded)) {
    kill();
    return;
  }
  if (source.readableEnded) {
    stdin.end();
    return;
  }
  const onError = (): void => kill();
  const onClose = (): void => {
    if (!source.readableEnded) kill();
  };
  source.on('error', onError);
  source.once('close', onClose);
  stdin.once('close', () => {
    source.unpipe(stdin);
    source.off('close', onClose);
  });
  source.pipe(stdin);
}

async function readTail(
  stream: Readable,
  onBytes: ((bytes: Uint8Array) => void) | undefined,
): Promise<string> {
  let tail = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    onBytes?.(chunk);
    tail = Buffer.concat([tail, chunk]);
    // Twice the cap before cutting: a byte-wise writer does not cost a copy each time.
    if (tail.length > 2 * stderrCapBytes) tail = Buffer.from(tail.subarray(-stderrCapBytes));
  });
  await closed(stream);
  return tail.subarray(-stderrCapBytes).toString('utf8');
}

async function closed(stream: Readable): Promise<void> {
  if (!stream.closed) await once(stream, 'close').catch(() => {});
}

function gitIsGone(): QuorateError {
  return new QuorateError('unavailable', 'git has ended');
}
