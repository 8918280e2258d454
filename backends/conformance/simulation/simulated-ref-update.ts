import type { Oid } from '../../contract/objects.js';
import { zeroOid } from './pack-model.js';
import { change } from './simulated-files.js';
import type { SimulatedFile } from './simulated-disk.js';
import { type GitRun, objectsOf } from './git-run.js';

interface Update {
  readonly ref: string;
  readonly oldOid: Oid;
  /** Undefined: only looked at. */
  readonly newOid: Oid | undefined;
}

interface Lock {
  readonly ref: string;
  readonly path: string;
}

/** `git update-ref --stdin -z`: one transaction of the files backend, in its own order of steps. */
export class RefUpdate {
  readonly #run: GitRun;
  readonly #syncs: boolean;
  readonly #locks: Lock[] = [];
  #packedLocked = false;
  #packedNew: SimulatedFile | undefined;

  constructor(run: GitRun) {
    this.#run = run;
    const components = run.config['core.fsync'] ?? 'none';
    this.#syncs = /reference|committed|all/.test(components);
  }

  async execute(): Promise<{ exitCode: number; stdout: string }> {
    const { updates, says, end } = parse(this.#run.stdin);
    const { logger } = this.#run.place.process;
    let said = says.first;
    try {
      const refusal = await this.#prepare(updates);
      if (refusal === undefined) {
        if (end === 'commit') await this.#commit(updates);
        await this.#unlock();
        return { exitCode: 0, stdout: `${said}${says.last}` };
      }
      logger.debug({ refusal }, 'git update-ref refuses');
    } catch (error) {
      // git says so and ends, whatever its disk did to it.
      if (!isDiskError(error)) throw error;
      logger.debug({ err: error }, 'git update-ref dies');
    }
    // What it cannot remove stays: it is for others to find.
    await this.#unlock().catch((error: unknown) => {
      if (!isDiskError(error)) throw error;
    });
    return { exitCode: 128, stdout: said };
  }

  /** Why it cannot be done. */
  async #prepare(updates: readonly Update[]): Promise<string | undefined> {
    const { store, place } = this.#run;
    const refs = store.refs();
    const objects = objectsOf(this.#run);
    const names = new Set([...refs.keys(), ...updates.filter(creates).map(({ ref }) => ref)]);
    for (const { ref, oldOid, newOid } of updates) {
      if (creates({ ref, oldOid, newOid }) && collides(ref, names)) return `${ref} collides`;
      if (newOid !== undefined && newOid !== zeroOid) {
        const object = objects.get(newOid);
        if (object === undefined) return `${newOid} is missing`;
        if (ref.startsWith('refs/heads/') && object.type !== 'commit') return `${ref} to no commit`;
      }
      if (!(await this.#lock(ref, newOid))) return `${ref} is locked`;
      // Under the lock.
      if (store.ref(ref) !== oldOid) return `${ref} is at ${store.ref(ref)}`;
    }
    const deletes = updates.filter(({ newOid }) => newOid === zeroOid);
    if (deletes.length === 0) return undefined;
    const lock = `${store.gitDir}/packed-refs.lock`;
    if (place.disk.find(lock) !== undefined) return 'packed-refs is locked';
    await change(place, 'write', () => place.disk.create(lock, true));
    this.#packedLocked = true;
    if (store.isUnreadable) return 'packed-refs is damaged';
    const packed = store.packedRefs();
    if (!deletes.some(({ ref }) => packed.has(ref))) return undefined;
    for (const { ref } of deletes) packed.delete(ref);
    await this.#writePacked(packed);
    return undefined;
  }

  async #lock(ref: string, newOid: Oid | undefined): Promise<boolean> {
    const { store, place } = this.#run;
    const path = `${store.gitDir}/${ref}.lock`;
    if (place.disk.find(path) !== undefined) return false;
    const file = await change(place, 'write', () => {
      place.disk.makeDirectory(path.slice(0, path.lastIndexOf('/')), true);
      return place.disk.create(path, true);
    });
    this.#locks.push({ ref, path });
    if (newOid === undefined || newOid === zeroOid) return true;
    await change(place, 'write', () => place.disk.write(file, Buffer.from(`${newOid}\n`)));
    if (this.#syncs) await change(place, 'fsync', () => place.disk.sync(file));
    return true;
  }

  async #writePacked(packed: ReadonlyMap<string, Oid>): Promise<void> {
    const { store, place } = this.#run;
    const path = `${store.gitDir}/packed-refs.new`;
    const lines = [...packed].sort(([a], [b]) => (a < b ? -1 : 1));
    const text = lines.map(([name, oid]) => `${oid} ${name}\n`).join('');
    const file = await change(place, 'write', () => {
      const made = place.disk.create(path, false);
      place.disk.write(made, Buffer.from(text));
      return made;
    });
    if (this.#syncs) await change(place, 'fsync', () => place.disk.sync(file));
    this.#packedNew = file;
  }

  /** New values first, so that what moves stays referenced; then deletions, in packed-refs before the loose files. */
  async #commit(updates: readonly Update[]): Promise<void> {
    const { store, place } = this.#run;
    for (const { ref, newOid } of updates) {
      if (newOid === undefined || newOid === zeroOid) continue;
      const path = `${store.gitDir}/${ref}`;
      await change(place, 'rename', () => {
        removeEmpty(place.disk, path);
        place.disk.rename(`${path}.lock`, path);
      });
      this.#locks.splice(
        this.#locks.findIndex((lock) => lock.ref === ref),
        1,
      );
    }
    if (this.#packedNew !== undefined) {
      await change(place, 'rename', () =>
        place.disk.rename(`${store.gitDir}/packed-refs.new`, `${store.gitDir}/packed-refs`),
      );
      this.#packedNew = undefined;
    }
    for (const { ref, newOid } of updates) {
      if (newOid !== zeroOid || store.looseRef(ref) === undefined) continue;
      await change(place, 'write', () => place.disk.unlink(`${store.gitDir}/${ref}`));
    }
  }

  async #unlock(): Promise<void> {
    const { store, place } = this.#run;
    if (this.#packedNew !== undefined) await this.#remove(`${store.gitDir}/packed-refs.new`);
    if (this.#packedLocked) await this.#remove(`${store.gitDir}/packed-refs.lock`);
    for (const { path } of this.#locks) await this.#remove(path);
    for (const { ref } of this.#locks) {
      // As git does after a deletion: directories that are empty now are in nobody's way.
      const directory = ref.slice(0, ref.lastIndexOf('/'));
      if (directory.split('/').length <= 2) continue;
      await change(place, 'write', () => removeEmpty(place.disk, `${store.gitDir}/${directory}`));
    }
  }

  #remove(path: string): Promise<void> {
    const { place } = this.#run;
    return change(place, 'write', () => place.disk.unlink(path));
  }
}

/** As `node:fs` tells of them: with a code. */
function isDiskError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string';
}

function creates({ oldOid, newOid }: Update): boolean {
  return oldOid === zeroOid && newOid !== undefined && newOid !== zeroOid;
}

/** A ref cannot be both a file and a directory. Names that the transaction deletes still count: git refuses both. */
function collides(ref: string, names: ReadonlySet<string>): boolean {
  return [...names].some((name) => name.startsWith(`${ref}/`) || ref.startsWith(`${name}/`));
}

/** Directories of refs that are empty now, as git removes them. */
export function removeEmpty(disk: GitRun['place']['disk'], path: string): void {
  const node = disk.find(path);
  if (node?.kind !== 'directory') return;
  for (const [name, child] of node.entries) {
    if (child.kind === 'file') return;
    removeEmpty(disk, `${path}/${name}`);
  }
  if (node.entries.size === 0) disk.removeDirectory(path);
}

interface Transaction {
  readonly updates: readonly Update[];
  readonly end: 'commit' | 'abort';
  /** What git says, before it prepares and when it is done. */
  readonly says: { readonly first: string; readonly last: string };
}

/** One transaction, begun here or with the one before, and maybe the beginning of the next. */
function parse(stdin: string): Transaction {
  const words = stdin.split('\0');
  const updates: Update[] = [];
  let end: 'commit' | 'abort' = 'abort';
  const says = { first: '', last: '' };
  for (let index = 0; index < words.length; index++) {
    const [verb = '', ref = ''] = (words[index] ?? '').split(' ');
    if (verb === 'commit') end = 'commit';
    if (verb === 'start' && index === 0) says.first = 'start: ok\n';
    else if (['prepare', 'commit', 'abort', 'start'].includes(verb)) says.last += `${verb}: ok\n`;
    if (verb === 'verify') {
      updates.push({ ref, oldOid: words[++index] ?? '', newOid: undefined });
    } else if (verb === 'delete') {
      updates.push({ ref, oldOid: words[++index] ?? '', newOid: zeroOid });
    } else if (verb === 'update') {
      const newOid = words[++index] ?? '';
      updates.push({ ref, oldOid: words[++index] ?? '', newOid });
    }
  }
  return { updates, end, says };
}
