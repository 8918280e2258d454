import { alternatesOf } from './git-run.js';
import { GitStore } from './git-store.js';
import type { SeededRandom } from './seeded-random.js';
import { filesBelow, type SimulatedDisk, type SimulatedFile } from './simulated-disk.js';

interface Flip {
  readonly disk: SimulatedDisk;
  readonly repositoryId: string;
  /** Of the file, on the disk. */
  readonly path: string;
  readonly data: Buffer;
  /** What it was. */
  readonly before: Buffer;
}

/** Of the files of a repository or a pool, those whose damage a store has to find out about. */
const fragile =
  /^store\/(?:repos|pools)\/([0-9a-f]{2})\/(\1[0-9a-f]{30})\/(?:state|git\/(?:HEAD|packed-refs|refs\/.*(?<!\.lock)|objects\/pack\/[^/]*\.(?:pack|idx)))$/;

const repositories = 'store/repos';
const pools = 'store/pools';

/** Bits that turned over on disks although nobody wrote: what it was, where, and whether it is still there. */
export class FlippedBits {
  readonly #flips: Flip[] = [];

  /** Turns over one bit of what lies at rest, anywhere or of one repository. Undefined: there is nothing yet. */
  flip(disk: SimulatedDisk, random: SeededRandom, id?: string): Pick<Flip, 'path'> | undefined {
    const roots = id === undefined ? [repositories, pools] : [`${repositories}/${id.slice(0, 2)}`];
    const files = roots
      .flatMap((root) => [...filesBelow(disk.find(root), root)])
      .filter(([path]) => id === undefined || path.includes(id))
      .filter(
        ([path, { data, synced }]) => fragile.test(path) && data === synced && data.length > 1,
      );
    if (files.length === 0) return undefined;
    const [path, file] = random.pick(files);
    const repositoryId = fragile.exec(path)?.[2] ?? '';
    const before = this.#flips.find(({ data }) => data === file.data)?.before ?? file.data;
    const data = flipped(file, random);
    // The same bit twice is no damage any more.
    if (!data.equals(before)) this.#flips.push({ disk, repositoryId, path, data, before });
    return { path };
  }

  /** Of what is damaged still on this disk, what shows: nobody can find out about the rest, and it does no harm. */
  showing(disk: SimulatedDisk): string[] {
    return this.#flips
      .filter((flip) => flip.disk === disk && isThere(flip) && shows(flip))
      .map(({ path }) => path);
  }

  /** Of what a repository's copy on a disk borrows, what is damaged still. */
  borrowed(disk: SimulatedDisk, repositoryId: string): string[] {
    return this.#flips
      .filter((flip) => flip.disk === disk && isBorrowed(flip, repositoryId))
      .map(({ path }) => `${repositoryId} borrows ${path}`);
  }

  /** Paths of what is damaged still: of one repository and what it borrows from, on one disk, or anywhere. */
  left(where: { readonly repositoryId?: string; readonly disk?: SimulatedDisk } = {}): string[] {
    return this.#flips
      .filter(
        (flip) =>
          (where.disk ?? flip.disk) === flip.disk &&
          (((where.repositoryId ?? flip.repositoryId) === flip.repositoryId && isThere(flip)) ||
            (where.repositoryId !== undefined && isBorrowed(flip, where.repositoryId))),
      )
      .map(({ path }) => path);
  }
}

function flipped(file: SimulatedFile, random: SeededRandom): Buffer {
  const data = Buffer.from(file.data);
  // The last is the end of a line, and any other white space is as good.
  const at = random.below(data.length - 1);
  data[at] = (data[at] ?? 0) ^ (1 << random.below(8));
  file.data = data;
  file.synced = data;
  return data;
}

function isThere({ disk, path, data }: Flip): boolean {
  return fileAt(disk, path)?.data === data;
}

/** A pack that was lent is one file with that of the pool, whatever becomes of the copy that it was damaged in. */
function isBorrowed({ disk, data }: Flip, repositoryId: string): boolean {
  const objects = `${repositories}/${repositoryId.slice(0, 2)}/${repositoryId}/git/objects`;
  return [objects, ...alternatesOf(disk, objects)].some((directory) =>
    [...filesBelow(disk.find(`${directory}/pack`)).values()].some((file) => file.data === data),
  );
}

function fileAt(disk: SimulatedDisk, path: string): SimulatedFile | undefined {
  try {
    const node = disk.find(path);
    return node?.kind === 'file' ? node : undefined;
  } catch {
    return undefined;
  }
}

const packedRefs = /\/git\/packed-refs$/;

/** A value in packed-refs is not looked at while there is a file for that ref; a line that is none is an error. */
function shows({ disk, path, data, before }: Flip): boolean {
  if (!packedRefs.test(path)) return true;
  const gitDir = path.replace(packedRefs, '/git');
  if (new GitStore(disk, gitDir).isUnreadable) return true;
  const [is, was] = [linesOf(data), linesOf(before)];
  return [...is, ...was].some((line) => {
    const [, name] = /^[0-9a-f]{40} (refs\/.+)$/.exec(line) ?? [];
    const changed = !is.has(line) || !was.has(line);
    return changed && name !== undefined && fileAt(disk, `${gitDir}/${name}`) === undefined;
  });
}

function linesOf(file: Buffer): Set<string> {
  return new Set(file.toString('latin1').split('\n'));
}
