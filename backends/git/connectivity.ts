import { QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { troubleIn } from './machine-trouble.js';
import { objectEnvironment, type ObjectSources } from './object-environment.js';

export interface ConnectivityCheck extends ObjectSources {
  readonly git: GitRunner;
  /** New values of refs. */
  readonly newOids: readonly Oid[];
  /**
   * Objects whose closure is known to be complete. All tips of the basis is always right; the old values of the
   * updated refs alone are cheaper on a repository with many refs when the walk is likely to end there.
   */
  readonly knownTips: readonly Oid[];
  /** File with the shallow boundary to assume, for a push from a shallow clone. */
  readonly shallowFile?: string;
  readonly signal?: AbortSignal;
}

export interface Connectivity {
  readonly connected: boolean;
  /** Those of `newOids` from which not everything can be reached. */
  readonly unconnected: readonly Oid[];
}

/** Walks made to find the culprits; with more new values than this in a broken push, the rest is refused unseen. */
const maxSingleChecks = 256;

/**
 * Whether everything that the new values reach is there: one walk from them down to `knownTips`, as
 * `git receive-pack` does it. Errors: `cancelled`, `unavailable`, `storage-failure` (the machine kept git from it).
 */
export async function findUnconnected(check: ConnectivityCheck): Promise<Connectivity> {
  if (await isConnected(check)) return { connected: true, unconnected: [] };
  const newOids = [...new Set(check.newOids)];
  if (newOids.length === 1) return { connected: false, unconnected: newOids };
  const unconnected: Oid[] = [];
  for (const [index, oid] of newOids.entries()) {
    if (index >= maxSingleChecks || !(await reachesAll(check, [oid]))) unconnected.push(oid);
  }
  return { connected: unconnected.length === 0, unconnected };
}

/** As `findUnconnected`, for who need not know which are at fault: one walk, which may take minutes, whatever it finds. */
export async function isConnected(check: ConnectivityCheck): Promise<boolean> {
  const newOids = [...new Set(check.newOids)];
  return newOids.length === 0 || reachesAll(check, newOids);
}

async function reachesAll(check: ConnectivityCheck, oids: readonly Oid[]): Promise<boolean> {
  const { git, knownTips, shallowFile, signal } = check;
  const result = await git.run({
    args: ['rev-list', '--objects', '--quiet', '--stdin'],
    env: {
      ...objectEnvironment(check),
      ...(shallowFile === undefined ? {} : { GIT_SHALLOW_FILE: shallowFile }),
    },
    stdin: writeRevisions(oids, knownTips),
    ...(signal === undefined ? {} : { signal }),
  });
  const trouble = troubleIn(result);
  if (result.exitCode === null || trouble.trouble !== undefined) {
    throw new QuorateError(
      'storage-failure',
      'git could not walk the new objects to their end: see whether memory, files or time are short',
      { details: trouble },
    );
  }
  return result.exitCode === 0;
}

/** Input of `git rev-list --stdin`: what to walk from, and what not to enter. */
export function writeRevisions(from: readonly Oid[], exclude: readonly Oid[]): Buffer {
  for (const oids of [from, exclude]) {
    for (const oid of oids) {
      // Anything else could be an option or an expression.
      if (!/^[0-9a-f]{40,64}$/.test(oid)) {
        throw new QuorateError('invalid-argument', 'that is no object id');
      }
    }
  }
  const excluded = [...new Set(exclude)].map((oid) => `^${oid}\n`);
  return Buffer.from(`${from.map((oid) => `${oid}\n`).join('')}${excluded.join('')}`, 'latin1');
}
