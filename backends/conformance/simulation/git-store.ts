import type { Oid } from '../../contract/objects.js';
import { contentsOf, isSoundIndex, objectsIn } from './pack-directory.js';
import { type ModelObject, zeroOid } from './pack-model.js';
import { filesBelow, present, type SimulatedDisk, SimulatedFile } from './simulated-disk.js';

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
    this.#addLoose('refs', this.#find('refs'), refs);
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
    return loose ?? this.#packed().refs.get(name) ?? zeroOid;
  }

  looseRef(name: string): Oid | undefined {
    const node = this.#find(name);
    return node instanceof SimulatedFile ? oidIn(node) : undefined;
  }

  packedRefs(): Map<string, Oid> {
    return new Map(this.#packed().refs);
  }

  /** packed-refs has a line that git cannot read: whatever goes through all refs dies of it. */
  get isUnreadable(): boolean {
    return this.#packed().isUnreadable;
  }

  #packed(): PackedRefs {
    const node = this.#find('packed-refs');
    if (!(node instanceof SimulatedFile)) return noPackedRefs;
    const known = packedFiles.get(node.data) ?? parsePacked(node.data.toString('latin1'));
    packedFiles.set(node.data, known);
    return known;
  }

  /** `objects` and further object directories: what git would find there now. */
  objects(directories: readonly string[]): ReadonlyMap<Oid, ModelObject> {
    const found = directories.flatMap((directory) => {
      const node = this.#disk.find(`${directory}/pack`);
      const objects = node?.kind === 'directory' ? objectsIn(node, present) : undefined;
      return objects === undefined || objects.size === 0 ? [] : [objects];
    });
    const [only] = found;
    return found.length === 1 && only !== undefined
      ? only
      : new Map(found.flatMap((it) => [...it]));
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

  #addLoose(prefix: string, node: ReturnType<SimulatedDisk['find']>, refs: Map<string, Oid>): void {
    if (node?.kind !== 'directory') return;
    for (const [name, child] of node.entries) {
      const path = `${prefix}/${name}`;
      if (child.kind === 'directory') this.#addLoose(path, child, refs);
      else if (!name.endsWith('.lock')) {
        const oid = oidIn(child);
        if (oid === undefined) refs.delete(path);
        else refs.set(path, oid);
      }
    }
  }
}

/** Of a loose ref that holds one. */
function oidIn({ data }: SimulatedFile): Oid | undefined {
  const known = looseOids.get(data) ?? parseLoose(data.toString('latin1').trim());
  looseOids.set(data, known);
  return known === false ? undefined : known;
}

/** Of files that were read before: what is on a disk is never changed in place. */
const looseOids = new WeakMap<Buffer, Oid | false>();

function parseLoose(text: string): Oid | false {
  return /^[0-9a-f]{40}$/.test(text) ? text : false;
}

interface PackedRefs {
  readonly refs: ReadonlyMap<string, Oid>;
  readonly isUnreadable: boolean;
}

const noPackedRefs: PackedRefs = { refs: new Map(), isUnreadable: false };
const packedFiles = new WeakMap<Buffer, PackedRefs>();

function parsePacked(text: string): PackedRefs {
  const refs = new Map<string, Oid>();
  const lines = text.split('\n');
  for (const line of lines) {
    const [, oid = '', name = ''] = packedLine.exec(line) ?? [];
    // git lists what is not below `refs/` as no ref.
    if (name.startsWith('refs/')) refs.set(name, oid);
  }
  const isUnreadable = lines.some((line, index) => {
    const isHeader = index === 0 && line.startsWith('# pack-refs with:');
    return line !== '' && !isHeader && !packedLine.test(line) && !peeledLine.test(line);
  });
  return { refs, isUnreadable };
}

export interface StoredModelPack {
  /** `pack-...` */
  readonly name: string;
  readonly kept: boolean;
  readonly cruft: boolean;
  readonly damaged: boolean;
  readonly contents: readonly ModelObject[];
}
