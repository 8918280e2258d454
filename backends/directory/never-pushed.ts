import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ObjectFormat } from '../contract/objects.js';
import type { GitRunner } from '../git/git-runner.js';
import { readRefSnapshot } from '../git/ref-snapshot.js';
import { readObjectStoreStats } from '../git/repository-files.js';

/**
 * Whether nothing was ever pushed to a repository, as far as its files tell: it has no refs, and neither objects nor a
 * quarantine, which come before refs. A git that has opened it and has not read a pack yet leaves no trace.
 */
export async function wasNeverPushedTo(repository: {
  readonly git: GitRunner;
  readonly gitDir: string;
  readonly objectFormat: ObjectFormat;
}): Promise<boolean> {
  const objectsDir = join(repository.gitDir, 'objects');
  // Before the refs: what is moved from one to the other meanwhile is seen in one of them.
  const others = (await readdir(objectsDir)).filter((name) => name !== 'info' && name !== 'pack');
  const { packCount, cruftPackCount } = await readObjectStoreStats(objectsDir);
  if (others.length + packCount + cruftPackCount > 0) return false;
  const { refs } = await readRefSnapshot({ ...repository, generation: 0 });
  return refs.length === 0;
}
