/**
 * What the embedded coordinator gets in place of `lmdb`, and of what it needs beside it (module-hooks.ts): transactions
 * that come one after the other, are seen by all from one moment on, and survive a power cut when they are flushed.
 */
import { Buffer } from 'node:buffer';
import type { SimulatedDisk } from './simulated-disk.js';
import { change, placeOf, type Place } from './simulated-files.js';

/** A database: latin1 keys in place of bytes, so that their order is that of the bytes. */
type Tree = ReadonlyMap<string, Buffer>;
type Trees = ReadonlyMap<string, Tree>;

/** What one environment has on its disk. */
interface Environment {
  /** After a power cut. */
  flushed: Trees;
  /** After a process was killed: the system has what was written. */
  written: Trees;
  powerCuts: number;
}

const environments = new WeakMap<SimulatedDisk, Map<string, Environment>>();

function environmentOf({ disk, path }: Place): Environment {
  const all = environments.get(disk) ?? new Map<string, Environment>();
  environments.set(disk, all);
  const found = all.get(path) ?? { flushed: new Map(), written: new Map(), powerCuts: 0 };
  all.set(path, found);
  if (found.powerCuts !== disk.powerCuts) found.written = found.flushed;
  found.powerCuts = disk.powerCuts;
  return found;
}

/** How long a commit that was not waited for takes to reach the disk. */
const flushMs = 20;

class Root {
  readonly #place: Place;
  readonly #environment: Environment;
  readonly #overlappingSync: boolean;
  /** What the running transaction has written. */
  #staged: Map<string, Map<string, Buffer>> | undefined;

  constructor(place: Place, overlappingSync: boolean) {
    this.#place = place;
    this.#environment = environmentOf(place);
    this.#overlappingSync = overlappingSync;
  }

  openDB(name: string): Database {
    return new Database(
      () => this.#staged?.get(name) ?? this.#environment.written.get(name) ?? new Map(),
      () => this.#stage(name),
    );
  }

  getKeys(): readonly Buffer[] {
    return [...this.#environment.written.keys()].map((name) => Buffer.from(`${name}\0`));
  }

  /**
   * With `overlappingSync`, lmdb's default, it is resolved when everybody sees it, and flushed some time after that;
   * without, it is flushed before either (checked with strace; see the store).
   */
  async childTransaction<T>(work: () => T): Promise<T> {
    const environment = this.#environment;
    const { process } = this.#place;
    let trees: Trees = environment.written;
    const result = await process.effect(0.02, () => {
      this.#staged = new Map();
      try {
        const answer = work();
        trees = new Map([...environment.written, ...this.#staged]);
        return answer;
      } finally {
        this.#staged = undefined;
      }
    });
    if (this.#overlappingSync) {
      environment.written = trees;
      process.after(flushMs, () => {
        environment.flushed = trees;
      });
      return result;
    }
    await change(this.#place, 'fsync', () => {
      environment.flushed = trees;
      environment.written = trees;
    });
    return result;
  }

  resetReadTxn(): void {}

  async close(): Promise<void> {}

  #stage(name: string): Map<string, Buffer> {
    if (this.#staged === undefined) throw new Error('a write without a transaction');
    const staged = this.#staged.get(name) ?? new Map(this.#environment.written.get(name));
    this.#staged.set(name, staged);
    return staged;
  }
}

interface Range {
  readonly start?: Buffer;
  readonly end?: Buffer;
}

class Database {
  readonly #read: () => Tree;
  readonly #write: () => Map<string, Buffer>;

  constructor(read: () => Tree, write: () => Map<string, Buffer>) {
    this.#read = read;
    this.#write = write;
  }

  get(key: Buffer): Buffer | undefined {
    return this.#read().get(key.toString('latin1'));
  }

  *getRange({ start, end }: Range): Generator<{ key: Buffer; value: Buffer }> {
    const tree = this.#read();
    const [from, to] = [start?.toString('latin1') ?? '', end?.toString('latin1')];
    const keys = [...tree.keys()].filter((key) => key >= from && (to === undefined || key < to));
    for (const key of keys.sort()) {
      const value = tree.get(key);
      if (value !== undefined) yield { key: Buffer.from(key, 'latin1'), value };
    }
  }

  getKeys(range: Range): readonly Buffer[] {
    return [...this.getRange(range)].map(({ key }) => key);
  }

  putSync(key: Buffer, value: Buffer): void {
    this.#write().set(key.toString('latin1'), Buffer.from(value));
  }

  removeSync(key: Buffer): void {
    this.#write().delete(key.toString('latin1'));
  }
}

export function open({
  path,
  overlappingSync = true,
}: {
  readonly path: string;
  readonly overlappingSync?: boolean;
}): Root {
  return new Root(placeOf(path), overlappingSync);
}

/** Of `node:fs`: the file that says who owns the directory. In the simulation nobody else comes near it. */
export function openSync(): number {
  return 0;
}

export function closeSync(): void {}

/** Of `koffi`: `flock`, which succeeds. */
export function load(): { readonly func: () => () => number } {
  return { func: () => () => 0 };
}
