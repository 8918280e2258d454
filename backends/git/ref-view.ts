import { copyFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { VisibleRefs } from '../contract/visible-refs.js';
import { QuorateError } from '../contract/errors.js';
import type { ObjectFormat, RefEntry, RefSnapshot } from '../contract/objects.js';

export interface RefView {
  /** Does not exist yet, or is empty. The caller removes it. */
  readonly directory: string;
  readonly snapshot: RefSnapshot;
  /** Refs that the view shows; all when absent. */
  readonly visible?: VisibleRefs;
  /** `objects` of the repository, absolute. */
  readonly objectsDir: string;
  readonly objectFormat: ObjectFormat;
}

/**
 * Writes a bare git directory that has the refs of one generation and the objects of the repository, for
 * `git upload-pack` and `git upload-archive` to run against: what they serve is pinned, whatever is pushed meanwhile,
 * and refs left out do not exist for them. Nothing of it is durable; nobody may write to it.
 */
export async function writeRefView(view: RefView): Promise<void> {
  const { directory, snapshot, objectsDir } = view;
  const test = view.visible?.test ?? ((): boolean => true);
  const shown = snapshot.refs.filter(({ name }) => test(name));
  try {
    await mkdir(join(directory, 'refs'), { recursive: true, mode: 0o700 });
    const { head } = snapshot;
    await Promise.all([
      writeFile(
        join(directory, 'HEAD'),
        'symref' in head ? `ref: ${head.symref}\n` : `${head.oid}\n`,
      ),
      writeFile(join(directory, 'config'), config(view.objectFormat)),
      writeFile(join(directory, 'packed-refs'), packedRefs(shown)),
      symlink(objectsDir, join(directory, 'objects')),
      ...shown.flatMap(({ name, symref }) =>
        symref === undefined ? [] : [writeSymref(join(directory, name), symref)],
      ),
      copyShallow(view),
    ]);
  } catch (error) {
    if (error instanceof QuorateError) throw error;
    throw new QuorateError('storage-failure', 'the refs to serve could not be written', {
      cause: error,
    });
  }
}

function config(objectFormat: ObjectFormat): string {
  const version = objectFormat === 'sha1' ? 0 : 1;
  const core = `[core]\n\trepositoryformatversion = ${version}\n\tbare = true\n`;
  return objectFormat === 'sha1' ? core : `${core}[extensions]\n\tobjectFormat = ${objectFormat}\n`;
}

/**
 * A `packed-refs` file (gitrepository-layout(5)) of these refs, less the symbolic ones. The header promises order and
 * peeling, so that git searches and does not open tags.
 */
export function packedRefs(refs: readonly RefEntry[]): string {
  const parts = ['# pack-refs with: peeled fully-peeled sorted \n'];
  for (const { name, oid, peeled, symref } of refs) {
    if (symref !== undefined) continue;
    parts.push(peeled === undefined ? `${oid} ${name}\n` : `${oid} ${name}\n^${peeled}\n`);
  }
  return parts.join('');
}

/** packed-refs cannot hold these; there are few. One whose target is hidden dangles, and git does not show it. */
async function writeSymref(path: string, target: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `ref: ${target}\n`);
}

/** Where the history of the repository itself is cut off. */
async function copyShallow({ directory, objectsDir }: RefView): Promise<void> {
  try {
    await copyFile(join(dirname(objectsDir), 'shallow'), join(directory, 'shallow'));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
    throw error;
  }
}
