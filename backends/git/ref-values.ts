import type { Oid, RefCommand } from '../contract/objects.js';
import { QuorateError } from '../contract/errors.js';
import type { GitRunner } from './git-runner.js';
import { troubleIn } from './machine-trouble.js';

/** Above this many, all refs are read: argv has a bound, and one pass over packed-refs is cheaper then. */
const maxNamed = 200;
/** 1,000,000 refs with long names. */
const maxListingBytes = 512 * 1024 * 1024;

export interface RefValuesOptions {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly signal?: AbortSignal;
}

/**
 * Current values of refs as they are on disk, resolved through symbolic refs; a ref without a value is not in the
 * answer. Whether the objects exist is not looked at. `names` limits the answer to those and the refs below them.
 */
export async function readRefValues(
  options: RefValuesOptions,
  names?: readonly string[],
): Promise<Map<string, Oid>> {
  const patterns = names === undefined || names.length > maxNamed ? [] : names;
  const result = await options.git.run({
    args: ['for-each-ref', '--format=%(objectname) %(refname)', '--', ...patterns],
    env: { GIT_DIR: options.gitDir },
    maxStdoutBytes: maxListingBytes,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  if (result.exitCode !== 0) {
    throw new QuorateError('storage-failure', 'the refs of the repository cannot be read', {
      details: { stderr: result.stderr, ...troubleIn(result) },
    });
  }
  const values = new Map<string, Oid>();
  for (const line of result.stdout.toString('utf8').split('\n')) {
    const space = line.indexOf(' ');
    if (space > 0) values.set(line.slice(space + 1), line.slice(0, space));
  }
  return values;
}

/** The value of the updated ref, as a command states it: zeros when there is none. */
export function valueOf(values: ReadonlyMap<string, Oid>, update: RefCommand): Oid {
  return values.get(update.ref) ?? '0'.repeat(update.newOid.length);
}
