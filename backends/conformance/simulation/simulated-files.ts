/**
 * What the code under simulation gets in place of `node:fs/promises` (module-hooks.ts): the same functions over
 * simulated disks. A path begins with the name of a mount, which belongs to one life of one process.
 */
import { Buffer } from 'node:buffer';
import type { DiskAction } from './hanging-disk.js';
import type {
  DiskNode,
  SimulatedDirectory,
  SimulatedDisk,
  SimulatedFile,
} from './simulated-disk.js';
import { diskError } from './simulated-disk.js';
import type { SimulatedProcess } from './simulated-process.js';

export interface Mount {
  readonly disk: SimulatedDisk;
  readonly process: SimulatedProcess;
}

const mounts = new Map<string, Mount>();

export function mount(name: string, what: Mount): void {
  mounts.set(name, what);
}

/** For the next world. */
export function unmountAll(): void {
  mounts.clear();
}

export interface Place extends Mount {
  /** On the disk. */
  readonly path: string;
}

export function placeOf(path: string): Place {
  const start = path.startsWith('/') ? 1 : 0;
  const slash = path.indexOf('/', start);
  const end = slash === -1 ? path.length : slash;
  const found = mounts.get(path.slice(start, end));
  if (found === undefined) throw new Error(`the simulation has no such place: ${path}`);
  return { disk: found.disk, process: found.process, path: path.slice(end + 1) };
}

/** Reads see what is there now; they cost no time, so that there are fewer events. */
function look<T>(path: string, run: (place: Place) => T): Promise<T> {
  const place = placeOf(path);
  return reads(place, () => {
    place.disk.checkWorks();
    return run(place);
  });
}

function reads<T>({ disk, process }: Mount, run: () => T): Promise<T> {
  const { hang } = disk;
  if (hang?.holds('read') === true) return hang.whenOver(() => reads({ disk, process }, run));
  return process.immediate(run);
}

const costMs = { write: 0.05, rename: 0.05, fsync: 0.8 };

/** A change of the disk: an event of its own, around which the process may die. */
export function change<T>(
  { disk, process }: Mount,
  kind: Exclude<DiskAction, 'read'>,
  run: () => T,
): Promise<T> {
  const { hang } = disk;
  if (hang?.holds(kind) === true) {
    return hang.whenOver(() => change({ disk, process }, kind, run));
  }
  const { random } = process;
  const chance = random.chance(0.5);
  const dieFirst = process.side === undefined ? chance : process.side === 'before';
  const point = kind === 'write' ? 'disk' : kind;
  return process.effect(costMs[kind] * random.between(0.5, 2), () => {
    if (dieFirst) process.passes(point);
    if (!process.alive) throw new Error('unreachable: nobody hears it');
    disk.checkWorks();
    const result = run();
    if (!dieFirst) process.passes(point);
    return result;
  });
}

type Encoding = string | { readonly encoding?: string | null } | null | undefined;

export async function readFile(path: string, encoding?: Encoding): Promise<string | Buffer> {
  const name = typeof encoding === 'string' ? encoding : encoding?.encoding;
  return look(path, (place) => {
    const { data } = place.disk.file(place.path);
    return Buffer.isEncoding(name ?? '') ? data.toString(toEncoding(name)) : Buffer.from(data);
  });
}

function toEncoding(name: string | null | undefined): BufferEncoding {
  return name === 'latin1' ? 'latin1' : 'utf8';
}

export async function writeFile(
  path: string,
  data: string | Uint8Array,
  options: { readonly flush?: boolean; readonly flag?: string } | string = {},
): Promise<void> {
  const place = placeOf(path);
  const { flush = false, flag = 'w' } = typeof options === 'string' ? {} : options;
  const exclusive = flag === 'wx';
  const file = await change(place, 'write', () => {
    const made = place.disk.create(place.path, exclusive);
    place.disk.write(made, Buffer.alloc(0));
    return made;
  });
  await change(place, 'write', () => place.disk.write(file, Buffer.from(data)));
  if (flush) {
    await change(place, 'fsync', () => place.disk.sync(file));
  }
}

export async function appendFile(path: string, data: string | Uint8Array): Promise<void> {
  const handle = await open(path, 'a');
  await handle.writeFile(data);
}

class Handle {
  readonly #place: Place;
  readonly #node: DiskNode;
  readonly #appends: boolean;

  constructor(place: Place, node: DiskNode, appends: boolean) {
    this.#place = place;
    this.#node = node;
    this.#appends = appends;
  }

  async writeFile(data: string | Uint8Array): Promise<void> {
    const { disk, path } = this.#place;
    const file = asFile(this.#node, path);
    const bytes = Buffer.from(data);
    await change(this.#place, 'write', () =>
      disk.write(file, this.#appends ? Buffer.concat([file.data, bytes]) : bytes),
    );
  }

  async appendFile(data: string | Uint8Array): Promise<void> {
    const { disk, path } = this.#place;
    const file = asFile(this.#node, path);
    await change(this.#place, 'write', () =>
      disk.write(file, Buffer.concat([file.data, Buffer.from(data)])),
    );
  }

  /** Over the beginning; what was longer stays behind it. */
  async write(
    data: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesWritten: number }> {
    const { disk, path } = this.#place;
    const file = asFile(this.#node, path);
    const bytes = Buffer.from(data.subarray(offset, offset + length));
    await change(this.#place, 'write', () => disk.overwrite(file, bytes, position));
    return { bytesWritten: length };
  }

  async truncate(length: number): Promise<void> {
    const { disk, path } = this.#place;
    const file = asFile(this.#node, path);
    await change(this.#place, 'write', () => disk.write(file, file.data.subarray(0, length)));
  }

  readFile(): Promise<Buffer> {
    return reads(this.#place, () => Buffer.from(asFile(this.#node, this.#place.path).data));
  }

  async sync(): Promise<void> {
    await change(this.#place, 'fsync', () => this.#place.disk.sync(this.#node));
  }

  datasync(): Promise<void> {
    return this.sync();
  }

  stat(): Promise<Stats> {
    return reads(this.#place, () => new Stats(this.#node));
  }

  close(): Promise<void> {
    return this.#place.process.immediate(() => undefined);
  }
}

function asFile(node: DiskNode, path: string): SimulatedFile {
  if (node.kind === 'directory') throw diskError('EISDIR', path);
  return node;
}

export async function open(path: string, flags = 'r'): Promise<Handle> {
  const place = placeOf(path);
  if (flags === 'r' || flags === 'r+') {
    return look(path, ({ disk }) => {
      const node = disk.find(place.path);
      if (node === undefined) throw diskError('ENOENT', path);
      return new Handle(place, node, false);
    });
  }
  if (!['w', 'wx', 'a'].includes(flags))
    throw new Error(`the simulation opens no file for ${flags}`);
  const file = await change(place, 'write', () => {
    const made = place.disk.create(place.path, flags === 'wx');
    if (flags === 'w') place.disk.write(made, Buffer.alloc(0));
    return made;
  });
  return new Handle(place, file, flags === 'a');
}

export async function mkdir(
  path: string,
  options: { readonly recursive?: boolean } = {},
): Promise<void> {
  const place = placeOf(path);
  await change(place, 'write', () =>
    place.disk.makeDirectory(place.path, options.recursive === true),
  );
}

export async function mkdtemp(prefix: string): Promise<string> {
  const path = `${prefix}${placeOf(prefix).process.random.hex(6)}`;
  await mkdir(path);
  return path;
}

export async function link(from: string, to: string): Promise<void> {
  const place = placeOf(to);
  await change(place, 'write', () => place.disk.link(placeOf(from).path, place.path));
}

export async function rename(from: string, to: string): Promise<void> {
  const place = placeOf(to);
  await change(place, 'rename', () => place.disk.rename(placeOf(from).path, place.path));
}

export async function unlink(path: string): Promise<void> {
  const place = placeOf(path);
  await change(place, 'write', () => place.disk.unlink(place.path));
}

export async function rmdir(path: string): Promise<void> {
  const place = placeOf(path);
  await change(place, 'write', () => place.disk.removeDirectory(place.path));
}

export async function rm(
  path: string,
  options: { readonly recursive?: boolean; readonly force?: boolean } = {},
): Promise<void> {
  const place = placeOf(path);
  const node = await look(path, ({ disk }) => disk.find(place.path));
  if (node === undefined) {
    if (options.force === true) return;
    throw diskError('ENOENT', path);
  }
  if (node.kind === 'file') {
    await unlink(path).catch((error: unknown) => {
      if (options.force !== true || !isCode(error, 'ENOENT')) throw error;
    });
    return;
  }
  if (options.recursive !== true) throw diskError('EISDIR', path);
  for (const name of node.entries.keys())
    await rm(`${path}/${name}`, { recursive: true, force: true });
  await rmdir(path).catch((error: unknown) => {
    if (options.force !== true || !isCode(error, 'ENOENT')) throw error;
  });
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

class Stats {
  readonly size: number;
  readonly mtimeMs: number;
  /** Of a file; directories are not asked for theirs. */
  readonly ino: number;
  readonly #kind: DiskNode['kind'];

  constructor(node: DiskNode) {
    this.#kind = node.kind;
    this.size = node.kind === 'file' ? node.data.length : 0;
    this.mtimeMs = node.modifiedMs;
    this.ino = node.kind === 'file' ? node.ino : 0;
  }

  isFile(): boolean {
    return this.#kind === 'file';
  }

  isDirectory(): boolean {
    return this.#kind === 'directory';
  }

  isSymbolicLink(): boolean {
    return false;
  }
}

export function stat(path: string): Promise<Stats> {
  return look(path, (place) => {
    const node = place.disk.find(place.path);
    if (node === undefined) throw diskError('ENOENT', path);
    return new Stats(node);
  });
}

export const lstat = stat;

export async function access(path: string): Promise<void> {
  await stat(path);
}

const blockBytes = 4096;

export function statfs(path: string): Promise<{ bavail: number; bsize: number; blocks: number }> {
  return look(path, ({ disk }) => ({
    bsize: blockBytes,
    blocks: 2 ** 28,
    bavail: disk.full ? 0 : 2 ** 27,
  }));
}

class Entry {
  readonly name: string;
  readonly #kind: DiskNode['kind'];

  constructor(name: string, node: DiskNode) {
    this.name = name;
    this.#kind = node.kind;
  }

  isFile(): boolean {
    return this.#kind === 'file';
  }

  isDirectory(): boolean {
    return this.#kind === 'directory';
  }

  isSymbolicLink(): boolean {
    return false;
  }
}

export function readdir(
  path: string,
  options: { readonly withFileTypes?: boolean } = {},
): Promise<readonly string[] | readonly Entry[]> {
  return look(path, (place) => {
    const { entries } = place.disk.directory(place.path);
    return options.withFileTypes === true ? entriesOf(entries) : [...entries.keys()];
  });
}

function entriesOf(entries: SimulatedDirectory['entries']): readonly Entry[] {
  return [...entries].map(([name, node]) => new Entry(name, node));
}

export async function opendir(path: string): Promise<AsyncIterable<Entry>> {
  const entries = await look(path, (place) => entriesOf(place.disk.directory(place.path).entries));
  return (async function* () {
    yield* entries;
  })();
}

/** Ref views are for serving fetches, which the simulation does not run. */
export async function copyFile(from: string, to: string): Promise<void> {
  await writeFile(to, await readFile(from));
}

export async function symlink(): Promise<void> {
  throw new Error('the simulation has no symbolic links');
}

export async function readlink(): Promise<string> {
  throw new Error('the simulation has no symbolic links');
}

export async function realpath(path: string): Promise<string> {
  return path;
}

export const constants = { F_OK: 0, R_OK: 4, W_OK: 2, X_OK: 1 };
