import type { Replica } from '../contract/replica.js';
import { emptyDigest } from '../git/digest.js';
import type { GitRunner } from '../git/git-runner.js';
import { createRepositoryFiles } from '../git/repository-files.js';
import { storageFailure } from './disk-errors.js';
import { createState } from './state-file.js';
import type { Store } from './store.js';

export type EmptyCopy = Parameters<Replica['create']>[1] & { readonly begun?: true };

/**
 * Makes the files of an empty repository, at generation 0. Durable on return. `begun`: it is to be filled, and no copy
 * before.
 */
export async function makeEmptyCopy(
  git: GitRunner,
  store: Pick<Store, 'makeRepositoryDirectory' | 'gitDirectory' | 'repositoryDirectory'>,
  id: string,
  { objectFormat, head, begun }: EmptyCopy,
): Promise<void> {
  try {
    await store.makeRepositoryDirectory(id);
    const gitDir = store.gitDirectory(id);
    await createRepositoryFiles({ git, gitDir, objectFormat, head });
    await createState(store.repositoryDirectory(id), {
      objectFormat,
      generation: 0,
      digest: emptyDigest({ symref: head }),
      ...(begun === true ? { begun } : {}),
    });
  } catch (error) {
    throw storageFailure(error);
  }
}
