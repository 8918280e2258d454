import type { GitResult } from './git-runner.js';

/** How a program ends over what it reads: a page that the disk does not give, say. */
const ownFaults: ReadonlySet<string | null> = new Set([
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
  'SIGILL',
  'SIGSEGV',
]);

/** Whether somebody ended git (for want of memory, of time): that says nothing of what it was reading. */
export function wasKilled({ exitCode, signal }: Pick<GitResult, 'exitCode' | 'signal'>): boolean {
  return exitCode === null && !ownFaults.has(signal);
}
