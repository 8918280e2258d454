import { QuorateError } from '../../backends/contract/errors.js';

/** Bytes of a whole name: leaves room in a coordinator key (1,024) and in any file system's path. */
const maxNameLength = 255;
/** Bytes of one segment: with `.git` behind it, it fits a directory entry (255) of every file system. */
const maxSegmentLength = 100;
/** Segments of a name: deep enough for nested groups, and a bound on directories made. */
const maxDepth = 8;

/**
 * The canonical name (`team/app`) of a path as a client wrote it: with or without one leading and one trailing `/` and
 * the suffix `.git`. Throws `invalid-argument` for everything that is not
 *
 *   name    = segment *("/" segment)
 *   segment = 1*(ALPHA / DIGIT / "." / "_" / "-")
 *
 * or has a segment that begins with `.` or `-` (hidden files, options), contains `..`, or ends with `.git` or `.lock`
 * (directories and files that git makes itself), whatever the case of its letters.
 */
export function parseRepositoryName(path: string): string {
  // Measured before anything is cut from it: the pieces below never work on more than this.
  if (path.length > maxNameLength + '/.git/'.length) throw refused('is too long');
  const name = path
    .replace(/^\//, '')
    .replace(/\/$/, '')
    .replace(/\.git$/, '');
  if (name === '') throw refused('is empty');
  if (name.length > maxNameLength) throw refused('is too long');
  const segments = name.split('/');
  if (segments.length > maxDepth) throw refused(`has more than ${maxDepth} parts`);
  for (const segment of segments) {
    const problem = segmentProblem(segment);
    if (problem !== undefined) throw refused(problem);
  }
  return name;
}

/**
 * Throws `invalid-argument` for a name that no new repository may have: over HTTP everything below `/api` is the admin
 * API, so that such a repository could be reached over SSH only.
 */
export function checkNewName(name: string): void {
  if (name.split('/', 1)[0] !== 'api') return;
  throw new QuorateError(
    'invalid-argument',
    `no repository can be named ${name}: over HTTP all paths below /api are the admin API`,
  );
}

function segmentProblem(segment: string): string | undefined {
  if (segment === '') return 'has an empty part';
  if (segment.length > maxSegmentLength) {
    return `has a part longer than ${maxSegmentLength} characters`;
  }
  if (!/^[A-Za-z0-9._-]+$/.test(segment)) {
    return 'may have only letters, digits, ".", "_" and "-" in its parts';
  }
  if (/^[.-]/.test(segment)) return 'has a part that begins with "." or "-"';
  if (segment.includes('..')) return 'contains ".."';
  return /\.(?:git|lock)$/i.test(segment) ? 'has a part that ends with .git or .lock' : undefined;
}

function refused(problem: string): QuorateError {
  return new QuorateError('invalid-argument', `this is no repository name: it ${problem}`);
}
