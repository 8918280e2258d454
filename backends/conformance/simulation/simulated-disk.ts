import type { Hang } from './hanging-disk.js';
import type { SeededRandom } from './seeded-random.js';

/** Files so far, on all disks. */
let files = 0;

/** A file: what is read now, and what a power cut leaves. Contents are never changed in place. */
export class SimulatedFile {
  readonly kind = 'file';
  /** Names that lead to one file have the same. */
  readonly ino = ++files;
  data: Buffer = empty;
  /** As of the last fsync; undefined before the first. */
  synced: Buffer | undefined;
  modifiedMs: number;

  constructor(modifiedMs: number) {
    this.modifiedMs = modifiedMs;
  }
}

export class SimulatedDirectory {
  readonly kind = 'directory';
  entries = new Map<string, DiskNode>();
  /** What a power cut leaves for certain. */
  durable = new Map<string, DiskNode>();
  /** Changes of names in it that a power cut may undo. */
  pending = 0;
  modifiedMs: number;

  constructor(modifiedMs: number) {
    this.modifiedMs = modifiedMs;
  }
}

export type DiskNode = SimulatedFile | SimulatedDirectory;

/** An entry of a directory that was put, replaced or (without a node) removed. */
interface NameChange {
  readonly directory: SimulatedDirectory;
  readonly name: string;
  readonly node: DiskNode | undefined;
}

/** How much a power cut takes of what was not synced. A process that is killed loses nothing. */
export type PowerCut = 'everything' | 'a suffix' | 'any part';

const empty = Buffer.alloc(0);

/**
 * A disk as POSIX promises it and no better: contents are safe after the file's fsync, names after the directory's.
 * What was not synced may be lost in any part and any order, but a rename is one change, and changes of one name keep
 * their order.
 */
export class SimulatedDisk {
  root: SimulatedDirectory;
  /** No write gets through; what is being freed does not help. */
  full = false;
  /** Every operation fails. */
  failing = false;
  /** What is asked waits until it is over, or some of it does. */
  hang: Hang | undefined;
  /** It was found to hang by who uses it, as `DiskWatch` does. */
  foundHanging = false;
  /** Told of that, and that it is over. */
  found: (() => void) | undefined;
  /** Changes of names since the last sync of their directories, each one or two of them that go together. */
  #pending: (readonly NameChange[])[] = [];
  /** How often it lost its power. */
  powerCuts = 0;
  /** Every directory that can be found now, by its path. */
  readonly #directories = new Map<string, SimulatedDirectory>();
  readonly #now: () => number;
  readonly #madeDirectory: (disk: SimulatedDisk, path: string) => void;

  constructor(
    now: () => number,
    madeDirectory: (disk: SimulatedDisk, path: string) => void = () => undefined,
  ) {
    this.#now = now;
    this.#madeDirectory = madeDirectory;
    this.root = new SimulatedDirectory(now());
  }

  find(path: string): DiskNode | undefined {
    const slash = path.lastIndexOf('/');
    const directory = slash === -1 ? undefined : this.#directories.get(path.slice(0, slash));
    const name = path.slice(slash + 1);
    if (directory === undefined || name === '' || name === '.') return this.#walk(path);
    return directory.entries.get(name);
  }

  #walk(path: string): DiskNode | undefined {
    let node: DiskNode | undefined = this.root;
    for (const name of parts(path)) {
      if (node === undefined) return undefined;
      if (node.kind === 'file') throw diskError('ENOTDIR', path);
      node = node.entries.get(name);
    }
    return node;
  }

  directory(path: string): SimulatedDirectory {
    const known = this.#directories.get(path);
    if (known !== undefined) return known;
    const node = this.find(path);
    if (node === undefined) throw diskError('ENOENT', path);
    if (node.kind === 'file') throw diskError('ENOTDIR', path);
    return node;
  }

  file(path: string): SimulatedFile {
    const node = this.find(path);
    if (node === undefined) throw diskError('ENOENT', path);
    if (node.kind === 'directory') throw diskError('EISDIR', path);
    return node;
  }

  /** `exclusive`: fails when the name is taken. */
  create(path: string, exclusive: boolean): SimulatedFile {
    const existing = this.find(path);
    if (existing !== undefined) {
      if (exclusive) throw diskError('EEXIST', path);
      if (existing.kind === 'directory') throw diskError('EISDIR', path);
      return existing;
    }
    this.#refuseFull(path);
    const file = new SimulatedFile(this.#now());
    this.#change([this.#place(path, file)]);
    return file;
  }

  write(file: SimulatedFile, data: Buffer): void {
    if (data.length > 0) this.#refuseFull('a file');
    file.data = Buffer.from(data);
    file.modifiedMs = this.#now();
  }

  /** In place: a power cut may leave the old bytes behind the first of the new ones. */
  overwrite(file: SimulatedFile, bytes: Buffer, position: number): void {
    const { data } = file;
    const rest = data.subarray(position + bytes.length);
    this.write(file, Buffer.concat([data.subarray(0, position), bytes, rest]));
  }

  makeDirectory(path: string, recursive: boolean): void {
    const existing = this.find(path);
    if (existing !== undefined) {
      if (recursive && existing.kind === 'directory') return;
      throw diskError('EEXIST', path);
    }
    const parent = parentOf(path);
    if (recursive && this.find(parent) === undefined) this.makeDirectory(parent, true);
    this.#refuseFull(path);
    const made = new SimulatedDirectory(this.#now());
    this.#change([this.#place(path, made)]);
    this.#directories.set(parts(path).join('/'), made);
    this.#madeDirectory(this, path);
  }

  link(from: string, to: string): void {
    const file = this.file(from);
    if (this.find(to) !== undefined) throw diskError('EEXIST', to);
    this.#refuseFull(to);
    this.#change([this.#place(to, file)]);
  }

  rename(from: string, to: string): void {
    const node = this.find(from);
    if (node === undefined) throw diskError('ENOENT', from);
    if (to.startsWith(`${from}/`)) throw diskError('EINVAL', to);
    const replaced = this.find(to);
    if (replaced?.kind === 'directory') {
      if (node.kind === 'file') throw diskError('EISDIR', to);
      if (replaced.entries.size > 0) throw diskError('ENOTEMPTY', to);
    }
    if (replaced?.kind === 'file' && node.kind === 'directory') throw diskError('ENOTDIR', to);
    const arrival = this.#place(to, node);
    this.#change([this.#place(from, undefined), arrival]);
    if (node.kind === 'file') return;
    this.#forgetBelow(node, parts(from).join('/'));
    this.#noteBelow(node, parts(to).join('/'));
  }

  unlink(path: string): void {
    const node = this.find(path);
    if (node === undefined) throw diskError('ENOENT', path);
    if (node.kind === 'directory') throw diskError('EISDIR', path);
    this.#change([this.#place(path, undefined)]);
  }

  removeDirectory(path: string): void {
    if (this.directory(path).entries.size > 0) throw diskError('ENOTEMPTY', path);
    this.#change([this.#place(path, undefined)]);
    this.#directories.delete(parts(path).join('/'));
  }

  /** fsync. Of a directory: every change of a name in it, and what those changes build on. */
  sync(node: DiskNode): void {
    if (node.kind === 'file') {
      node.synced = node.data;
      return;
    }
    if (node.pending === 0) return;
    this.#settle((change) => {
      for (const { directory } of change) if (directory === node) return true;
      return false;
    });
  }

  /** Loses what was not synced, or some of it. */
  cutPower(random: SeededRandom, cut: PowerCut): void {
    this.powerCuts++;
    const survivors = random.below(this.#pending.length + 1);
    let index = this.#pending.length;
    this.#settle(() => {
      index--;
      if (cut === 'everything') return false;
      return cut === 'a suffix' ? index < survivors : random.chance(0.5);
    });
    for (const change of this.#pending) {
      for (const { directory } of change) directory.pending--;
    }
    this.#pending = [];
    this.#restore(this.root, { random, cut, seen: new Set() });
    this.#directories.clear();
    for (const [name, node] of this.root.entries) {
      if (node.kind === 'directory') this.#noteBelow(node, name);
    }
  }

  checkWorks(): void {
    if (this.failing) throw diskError('EIO', 'the disk');
  }

  /** Makes the chosen pending changes durable, with the earlier changes of the same names. */
  #settle(chosen: (change: readonly NameChange[]) => boolean): void {
    const touched = new Map<SimulatedDirectory, Set<string>>();
    const settled: (readonly NameChange[])[] = [];
    const pending = this.#pending;
    for (let index = pending.length - 1; index >= 0; index--) {
      const change = pending[index] ?? [];
      const wanted = chosen(change);
      const isNeeded = ({ directory, name }: NameChange): boolean =>
        touched.get(directory)?.has(name) === true;
      if (!wanted && (touched.size === 0 || !change.some(isNeeded))) continue;
      settled.push(change);
      for (const { directory, name } of change) {
        touched.set(directory, (touched.get(directory) ?? new Set()).add(name));
      }
    }
    if (settled.length === 0) return;
    const gone = new Set(settled);
    this.#pending = pending.filter((change) => !gone.has(change));
    for (const change of settled.reverse()) {
      for (const { directory, name, node } of change) {
        if (node === undefined) directory.durable.delete(name);
        else directory.durable.set(name, node);
        directory.pending--;
      }
    }
  }

  #restore(
    directory: SimulatedDirectory,
    loss: { random: SeededRandom; cut: PowerCut; seen: Set<DiskNode> },
  ): void {
    directory.entries = new Map(directory.durable);
    for (const node of directory.entries.values()) {
      if (loss.seen.has(node)) continue;
      loss.seen.add(node);
      if (node.kind === 'directory') this.#restore(node, loss);
      else node.synced = node.data = remains(node, loss);
    }
  }

  #noteBelow(directory: SimulatedDirectory, path: string): void {
    this.#directories.set(path, directory);
    for (const [name, node] of directory.entries) {
      if (node.kind === 'directory') this.#noteBelow(node, `${path}/${name}`);
    }
  }

  #forgetBelow(directory: SimulatedDirectory, path: string): void {
    this.#directories.delete(path);
    for (const [name, node] of directory.entries) {
      if (node.kind === 'directory') this.#forgetBelow(node, `${path}/${name}`);
    }
  }

  #place(path: string, node: DiskNode | undefined): NameChange {
    const slash = path.lastIndexOf('/');
    const known = slash === -1 ? undefined : this.#directories.get(path.slice(0, slash));
    const last = path.slice(slash + 1);
    if (known !== undefined && last !== '' && last !== '.') {
      return { directory: known, name: last, node };
    }
    const directory = this.directory(parentOf(path));
    const name = parts(path).at(-1);
    if (name === undefined) throw diskError('EBUSY', path);
    return { directory, name, node };
  }

  #change(change: readonly NameChange[]): void {
    for (const { directory, name, node } of change) {
      if (node === undefined) directory.entries.delete(name);
      else directory.entries.set(name, node);
      directory.modifiedMs = this.#now();
      directory.pending++;
    }
    this.#pending.push(change);
  }

  #refuseFull(path: string): void {
    if (this.full) throw diskError('ENOSPC', path);
  }
}

function remains(
  { data, synced }: SimulatedFile,
  { random, cut }: { random: SeededRandom; cut: PowerCut },
): Buffer {
  if (synced === data) return data;
  const safe = synced ?? empty;
  if (cut === 'everything') return safe;
  return random.pick([safe, data, torn(data, random), mixed(data, safe, random)]);
}

/** Its first blocks are the new ones, the others still what was safe. */
function mixed(data: Buffer, safe: Buffer, random: SeededRandom): Buffer {
  const cut = random.below(data.length + 1);
  return Buffer.concat([data.subarray(0, cut), safe.subarray(cut)]);
}

/** Its blocks were written in part. */
function torn(data: Buffer, random: SeededRandom): Buffer {
  const cut = random.below(data.length + 1);
  if (random.chance(0.5)) return data.subarray(0, cut);
  return Buffer.concat([data.subarray(0, cut), Buffer.alloc(data.length - cut)]);
}

/** Every file below a directory as it can be read now. */
export function filesBelow(node: DiskNode | undefined, path = ''): Map<string, SimulatedFile> {
  const found = new Map<string, SimulatedFile>();
  addFiles(node, path, found);
  return found;
}

function addFiles(
  node: DiskNode | undefined,
  path: string,
  found: Map<string, SimulatedFile>,
): void {
  if (node?.kind === 'file') found.set(path, node);
  if (node?.kind !== 'directory') return;
  for (const [name, child] of node.entries) {
    addFiles(child, path === '' ? name : `${path}/${name}`, found);
  }
}

/** What is on a disk, as one looks at it: what can be read now, or what a power cut now would leave at the least. */
export interface DiskView {
  readonly entries: (directory: SimulatedDirectory) => ReadonlyMap<string, DiskNode>;
  readonly data: (file: SimulatedFile) => Buffer;
}

export const present: DiskView = {
  entries: (directory) => directory.entries,
  data: (file) => file.data,
};

export const durable: DiskView = {
  entries: (directory) => directory.durable,
  data: (file) => file.synced ?? empty,
};

/** What lies there below a directory; a file where the path wants a directory is nothing. */
export function nodeAt(
  from: DiskNode | undefined,
  path: string,
  view: DiskView,
): DiskNode | undefined {
  let node = from;
  for (const name of parts(path)) {
    node = node?.kind === 'directory' ? view.entries(node).get(name) : undefined;
  }
  return node;
}

const split = new Map<string, readonly string[]>();
/** Of one seed and a few more: paths have random names in them. */
const maxSplit = 20_000;

export function parts(path: string): readonly string[] {
  let found = split.get(path);
  if (found === undefined) {
    found = path.split('/').filter((part) => part !== '' && part !== '.');
    if (split.size >= maxSplit) split.clear();
    split.set(path, found);
  }
  return found;
}

function parentOf(path: string): string {
  return parts(path).slice(0, -1).join('/');
}

export function diskError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
