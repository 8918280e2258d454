import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { git } from '../commands.js';
import type { Peer } from './peer.js';

/** What every peer but Quorate has in common: bare repositories below a root, and nothing that runs after a push. */
export function plainRepositories(
  root: string,
): Pick<Peer, 'load' | 'create' | 'remove' | 'quietMs'> {
  const pathOf = (repository: string): string => join(root, `${repository}.git`);
  return {
    quietMs: 200,
    // The fixtures are repacked, with a bitmap and packed refs: a copy is what `git gc` would leave.
    load: async (repository, barePath) => {
      await cp(barePath, pathOf(repository), { recursive: true });
      await configure(pathOf(repository));
    },
    create: async (repository) => {
      await git(['init', '--quiet', '--bare', '-b', 'main', pathOf(repository)]);
      await configure(pathOf(repository));
    },
    remove: (repository) => rm(pathOf(repository), { recursive: true }),
  };
}

async function configure(path: string): Promise<void> {
  await git(['config', 'http.receivepack', 'true'], { cwd: path });
  await git(['config', 'daemon.receivepack', 'true'], { cwd: path });
  await git(['config', 'uploadpack.allowFilter', 'true'], { cwd: path });
}
