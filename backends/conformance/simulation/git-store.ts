import type { Oid } from '../../contract/objects.js';
import { decodePack, isWhole, type ModelObject, zeroOid } from './pack-model.js';
import { filesBelow, type SimulatedDisk, SimulatedFile } from './simulated-disk.js';

const packedLine = /^([0-9a-f]{40}) (.+)$/;
/** What the tag in the line before points at. */
const peeledLine = /^\^[0-9a-f]{40}$/;

/** What the simulated git reads of a bare repository on a simulated disk. Paths are those of the disk. */
export class GitStore {
  readonly #disk: SimulatedDisk;
  readonly gitDir: string;

  constructor(disk: SimulatedDisk, gitDir: string) {
    this.#disk = disk;
    this.gitDir = gitDir;
  }

  head(): { readonly symref: string } | { readonly oid: Oid } | undefined {
    const text = this.#read('HEAD')?.trim() ?? '';
    if (text.startsWith('ref: ')) return { symref: text.slice('ref: '.length) };
    return /^[0-9a-f]{40}$/.test(text) ? { oid: text } : undefined;
  }

  /** All refs, loose ones before packed ones, sorted by name. */
  refs(): Map<string, Oid> {
    const refs = this.packedRefs();
    this.#addLoose('refs', refs);
    return new Map([...refs].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** Files below `refs/` that hold no object id: git passes over them, and `git fsck` complains. */
  brokenRefs(): readonly string[] {
    const files = filesBelow(this.#find('refs'), 'refs');
    return [...files.keys()].filter(
      (path) => !path.endsWith('.lock') && this.looseRef(path) === undefined,
    );
  }

  ref(name: string): Oid {
    const loose = this.looseRef(name);
    return loose ?? this.packedRefs().get(name) ?? zeroOid;
  }

  looseRef(name: string): Oid | undefined {
    const node = this.#find(name);
    if (!(node instanceof SimulatedFile)) return undefined;
    const text = node.data.toString('latin1').trim();
    return /^[0-9a-f]{40}$/.test(text) ? text : undefined;
  }

  packedRefs(): Map<string, Oid> {
    const refs = new Map<string, Oid>();
    for (const line of this.#packedLines()) {
      const [, oid = '', name = ''] = packedLine.exec(line) ?? [];
      // git lists what is not below `refs/` as no ref.
      if (name.startsWith('refs/')) refs.set(name, oid);
    }
    return refs;
  }

  /** packed-refs has a line that git cannot read: whatever goes through all refs dies of it. */
  get isUnreadable(): boolean {
    return this.#packedLines().some((line, index) => {
      const isHeader = index === 0 && line.startsWith('# pack-refs with:');
      return line !== '' && !isHeader && !packedLine.test(line) && !peeledLine.test(line);
    });
  }

  #packedLines(): readonly string[] {
    return (this.#read('packed-refs') ?? '').split('\n');
  }

  /** `objects` and further object directories: what git would find there now. */
  objects(directories: readonly string[]): Map<Oid, ModelObject> {
    const objects = new Map<Oid, ModelObject>();
    for (const directory of directories) {
      for (const { contents } of this.packs(directory)) {
        for (const object of contents) objects.set(object.oid, object);
      }
    }
    return objects;
  }

  /** Packs with an index. One that is damaged has nothing in it. */
  packs(directory: string): readonly StoredModelPack[] {
    const node = this.#disk.find(`${directory}/pack`);
    if (node?.kind !== 'directory') return [];
    const names = node.entries;
    return [...names].flatMap(([file, entry]) => {
      const name = file.replace(/\.pack$/, '');
      const index = names.get(`${name}.idx`);
      if (name === file || entry.kind !== 'file' || index?.kind !== 'file') return [];
      const contents = isSoundIndex(index.data) ? contentsOf(entry.data) : undefined;
      return [
        {
          name,
          kept: names.has(`${name}.keep`),
          cruft: names.has(`${name}.mtimes`),
          damaged: contents === undefined,
          contents: contents ?? [],
        },
      ];
    });
  }

  #read(name: string): string | undefined {
    const node = this.#find(name);
    return node instanceof SimulatedFile ? node.data.toString('latin1') : undefined;
  }

  #find(name: string): ReturnType<SimulatedDisk['find']> {
    try {
      return this.#disk.find(`${this.gitDir}/${name}`);
    } catch {
      return undefined;
    }
  }

  #addLoose(prefix: string, refs: Map<string, Oid>): void {
    const node = this.#find(prefix);
    if (node?.kind !== 'directory') return;
    for (const [name, child] of node.entries) {
      const path = `${prefix}/${name}`;
      if (child.kind === 'directory') this.#addLoose(path, refs);
      else if (!name.endsWith('.lock')) {
        const oid = this.looseRef(path);
        if (oid === undefined) refs.delete(path);
        else refs.set(path, oid);
      }
    }
  }
}

export interface StoredModelPack {
  /** `pack-...` */
  readonly name: string;
  readonly kept: boolean;
  readonly cruft: boolean;
  readonly damaged: boolean;
  readonly contents: readonly ModelObject[];
}

const indexes = new WeakMap<Buffer, boolean>();

function isSoundIndex(data: Buffer): boolean {
  const sound = indexes.get(data) ?? isWhole(data);
  indexes.set(data, sound);
  return sound;
}

const decoded = new WeakMap<Buffer, readonly ModelObject[] | 'damaged'>();

function contentsOf(data: Buffer): readonly ModelObject[] | undefined {
  const contents = decoded.get(data) ?? decodePack(data) ?? 'damaged';
  decoded.set(data, contents);
  return contents === 'damaged' ? undefined : contents;
}
