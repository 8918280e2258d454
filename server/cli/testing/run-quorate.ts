import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const entry = fileURLToPath(new URL('entry.js', import.meta.url));
/** A command takes a fraction of a second, on a busy machine some; a hanging one must not hang the tests. */
const timeoutMs = 180_000;

export interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly stdin?: string;
  /** The child as soon as it runs. */
  readonly started?: (child: ChildProcess) => void;
}

/** Runs the built command line as a child process, without anything of this environment's own. */
export async function runQuorate(
  args: readonly string[],
  options: RunOptions = {},
): Promise<Outcome> {
  const { env = {}, cwd, stdin = '', started } = options;
  const child = spawn(process.execPath, [entry, ...args], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: 'pipe',
    timeout: timeoutMs,
    ...(cwd === undefined ? {} : { cwd }),
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined).end(stdin);
  started?.(child);
  await once(child, 'close');
  return { exitCode: child.exitCode, stdout, stderr };
}

/** The command's file, to run it in other ways: under `script`, or into a pipe that closes. */
export const quorateCommand: readonly string[] = [process.execPath, entry];
