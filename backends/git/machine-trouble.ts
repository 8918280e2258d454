import type { GitResult } from './git-runner.js';
import { wasKilled } from './killed.js';

/**
 * What keeps git from reading what is there, in the words of the C library (strerror(3), LC_ALL=C): the machine is short
 * of something, or does not let it. EIO, EUCLEAN and EBADMSG are not among them, which are about the data.
 */
const errnos = [
  'Cannot allocate memory',
  'Connection timed out',
  'Device or resource busy',
  'Disk quota exceeded',
  'File too large',
  'Interrupted system call',
  'No space left on device',
  'No such device',
  'No such device or address',
  'Operation not permitted',
  'Permission denied',
  'Read-only file system',
  'Resource temporarily unavailable',
  'Stale file handle',
  'Too many open files',
  'Too many open files in system',
  'Transport endpoint is not connected',
];

/**
 * A line in which git says that. It gives no errno by its exit status, and calls an object broken that it had no memory
 * to read: this is the one place where its words are read (DESIGN.md, "What git says of the machine"). Packs that it
 * could not open it names without the reason; what is wrong in them is told by their checksums.
 */
const troubleLine = new RegExp(
  `^(?:error|fatal|warning): (?:.*: (?:${errnos.join('|')})$` +
    '|(?:\\w+: )?[Oo]ut of memory\\b' +
    '|packfile \\S+ (?:index not opened|index unavailable|cannot be accessed|cannot be opened)$' +
    // Not those with which a program ends over what it reads (`wasKilled`).
    '|\\S+ died of signal (?!(?:4|6|7|8|11)$)\\d+$)',
);

/** Progress ends with a carriage return. */
const lineEnd = /[\r\n]/;
/** A line of git's is at most a few paths long; of a longer one the beginning counts. */
const maxLineChars = 8192;

/** Tells of each line that a git writes to its stderr, of which `GitResult` keeps the end. */
export class StderrLines {
  readonly #onLine: (line: string) => void;
  #rest = '';

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  readonly onStderr = (bytes: Uint8Array): void => {
    const lines = `${this.#rest}${Buffer.from(bytes).toString('latin1')}`.split(lineEnd);
    this.#rest = (lines.pop() ?? '').slice(0, maxLineChars);
    for (const line of lines) this.#onLine(line);
  };

  /** git has ended, and its last line perhaps without a newline. */
  end(): void {
    this.#onLine(this.#rest);
    this.#rest = '';
  }
}

/** What a git says, or shows by its end, of the machine; undefined when that is nothing. */
export function troubleOf(
  result: Pick<GitResult, 'exitCode' | 'signal' | 'stderr'>,
): string | undefined {
  if (wasKilled(result)) return 'git was killed: see whether memory or time is short';
  const { exitCode, stderr } = result;
  if (exitCode !== null && couldNotRun(exitCode)) return 'git could not be run';
  return ownWords(stderr).split(lineEnd).find(isTrouble);
}

/**
 * What git says of an entry of a tree that is no file, or no directory, as it should be, holds its name: a pusher chose
 * it, newlines and all. It is the last that git says, and perhaps cut short.
 */
function ownWords(stderr: string): string {
  const quoted = /^fatal: entry '/m.exec(stderr);
  return quoted === null ? stderr : stderr.slice(0, quoted.index);
}

/** `troubleOf`, as details of an error: then it says nothing of the repository. */
export function troubleIn(result: Pick<GitResult, 'exitCode' | 'signal' | 'stderr'>): {
  readonly trouble?: string;
} {
  const trouble = troubleOf(result);
  return trouble === undefined ? {} : { trouble };
}

/** The dynamic linker, `nice` and their like end so when there is no git to begin with; beyond 128 it was a signal. */
export function couldNotRun(exitCode: number): boolean {
  return (exitCode >= 125 && exitCode <= 127) || exitCode > 128;
}

/** Whether git says in this line what the machine is short of. */
export function isTrouble(line: string): boolean {
  return troubleLine.test(line);
}
