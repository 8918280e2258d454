import type { Logger, Meter } from '../contract/environment.js';
import { asQuorateError, QuorateError, refuseCancelled } from '../contract/errors.js';
import type { VerifyReport } from '../contract/replica.js';
import type { Oid, RefSnapshot } from '../contract/objects.js';
import { findBroken, isSound } from '../git/fsck.js';
import type { GitRunner } from '../git/git-runner.js';
import type { ObjectReader } from '../git/object-reader.js';
import { readKnownRefs, readRefSnapshot } from '../git/ref-snapshot.js';
import { createRepositoryFiles, removeTree } from '../git/repository-files.js';
import { isOfTheMachine } from './disk-errors.js';
import type { ObjectPools } from './object-pools.js';
import type { OpenRepositories } from './open-repositories.js';
import type { OpenRepository } from './open-repository.js';
import type { Store } from './store.js';

export interface VerifyDependencies {
  readonly git: GitRunner;
  readonly objects: Pick<ObjectReader, 'peel'>;
  readonly store: Pick<Store, 'works' | 'viewsDirectory'>;
  readonly open: Pick<OpenRepositories, 'with'>;
  readonly pools: Pick<ObjectPools, 'still'>;
}

/** As `verifyCopy`, and says in log and metrics what came of it. */
export async function verifyTold(
  dependencies: VerifyDependencies & { readonly logger: Logger; readonly meter: Meter },
  id: string,
  signal: AbortSignal,
): Promise<VerifyReport> {
  const { logger, meter } = dependencies;
  const about = { component: 'verify', repo: id };
  try {
    const report = await verifyCopy(dependencies, id, signal);
    const { problems } = report;
    meter.count('copies_verified', { outcome: problems.length === 0 ? 'sound' : 'damaged' });
    if (problems.length > 0) logger.error({ ...about, problems }, 'a copy is damaged');
    return report;
  } catch (error) {
    if (signal.aborted) throw error;
    meter.count('copies_verified', { outcome: 'unknown' });
    logger.warn({ ...about, err: error }, 'a copy could not be verified');
    throw error;
  }
}

/** So often it has to fail while the disk works, one right after the other, to be the copy's own trouble. */
const maxOpenings = 2;

/**
 * Reads a copy from the disk again: every object, and the refs against the digest that is known of them. A copy that
 * cannot be opened, or cannot finish an entry, although the disk takes and keeps what is written to it and git runs is
 * damaged as well. While they do not, `storage-failure`, and while the machine is short of what it takes to read it,
 * that or `unavailable`: nothing is known of the copy then. `cancelled`, too, when the copy is to go.
 */
export async function verifyCopy(
  dependencies: VerifyDependencies,
  id: string,
  signal: AbortSignal,
): Promise<VerifyReport> {
  const { open } = dependencies;
  for (let openings = 1; ; openings++) {
    try {
      return await open.with(id, (repository) =>
        verifyOpen(dependencies, repository, AbortSignal.any([signal, repository.going])),
      );
    } catch (error) {
      const { code, message } = asQuorateError(error);
      const maybeOurs = code === 'storage-failure' && !isOfTheMachine(error);
      if (!maybeOurs || !(await worksElsewhere(dependencies, id, signal))) throw error;
      if (openings === maxOpenings) return { generation: 0, digest: '', problems: [message] };
    }
  }
}

/** Whether disk and git do for an empty repository what they did not do for this copy. */
async function worksElsewhere(
  { git, store }: Pick<VerifyDependencies, 'git' | 'store'>,
  id: string,
  signal: AbortSignal,
): Promise<boolean> {
  if (!(await store.works(id))) return false;
  const gitDir = `${store.viewsDirectory}/probe-${id}`;
  try {
    await removeTree(gitDir);
    await createRepositoryFiles({ git, gitDir, objectFormat: 'sha1', head: 'refs/heads/main' });
    await readRefSnapshot({ git, gitDir, generation: 0, objectFormat: 'sha1' });
    return await isSound({ git, gitDir, signal });
  } catch {
    return false;
  } finally {
    await removeTree(gitDir).catch(() => undefined);
  }
}

async function verifyOpen(
  { git, objects, pools }: VerifyDependencies,
  repository: OpenRepository,
  signal: AbortSignal,
): Promise<VerifyReport> {
  const { gitDirectory: gitDir } = repository;
  const unfinished = await unfinishedBy(repository);
  const refs = await repository.refsQueue.run(async () => {
    const { generation, objectFormat, interrupted, digest: known } = repository;
    const options = { git, gitDir, generation, objectFormat, digest: known, signal };
    const { snapshot, digest } = await readKnownRefs(options).catch((error: unknown) => {
      // Whether it is the copy's fault that git could not list them has to be found out first.
      if (asQuorateError(error).code !== 'data-corrupt') throw error;
      return { snapshot: undefined, digest: '' };
    });
    refuseCancelled(signal);
    return { generation, digest, problems: problemsOf(digest, known, interrupted), snapshot };
  });
  if (signal.aborted) throw new QuorateError('cancelled', 'the verification was given up');
  const { snapshot, problems, ...verified } = refs;
  const peeling = snapshot === undefined ? [] : await wronglyPeeled(objects, gitDir, snapshot);
  const broken = await findBroken({
    git,
    gitDir,
    signal,
    still: (look) => pools.still(repository, look, signal),
  });
  return { ...verified, problems: [...unfinished, ...problems, ...peeling, ...broken] };
}

/** An entry that cannot be applied because of what lies here is no less damage than one that is lost. */
async function unfinishedBy(
  repository: Pick<OpenRepository, 'finish'>,
): Promise<readonly string[]> {
  try {
    await repository.finish();
    return [];
  } catch (error) {
    const { code, message } = asQuorateError(error);
    if (code !== 'data-corrupt') throw error;
    return [message];
  }
}

/**
 * What an annotated tag points at stands in `packed-refs` beside it (git-pack-refs(1)), and git tells clients just that:
 * the digest of the refs has no part of it.
 */
async function wronglyPeeled(
  objects: Pick<ObjectReader, 'peel'>,
  gitDir: string,
  { refs }: RefSnapshot,
): Promise<readonly string[]> {
  const tags = refs.filter(({ peeled }) => peeled !== undefined);
  const oids = tags.map(({ oid }) => oid);
  // What cannot be read is found with all other objects.
  const targets = await objects.peel(gitDir, oids).catch(() => new Map<Oid, Oid>());
  const wrong = tags.filter(({ oid, peeled }) => (targets.get(oid) ?? peeled) !== peeled);
  return wrong.map(({ name }) => `${name} is said to point at another object than it does`);
}

/** Of an apply that stopped half-way some refs are new already. */
function problemsOf(found: string, known: string, interrupted: boolean): readonly string[] {
  if (found === '') return ['the refs cannot be read'];
  return found === known || interrupted ? [] : ['the refs are not those of the generation'];
}
