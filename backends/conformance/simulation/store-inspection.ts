import { createHash } from 'node:crypto';
import type { Oid } from '../../contract/objects.js';
import { numberOf, recordOf, textOf } from './commit-observer.js';
import { decodePack, isWhole, type ModelObject } from './pack-model.js';
import type { SimulatedDisk } from './simulated-disk.js';
import { filesBelow } from './simulated-disk.js';

/** A copy of a repository as it lies on a disk, read by code of the checker's own. */
export interface Copy {
  /** Of the marker; undefined without one. */
  readonly generation: number | undefined;
  /** That of the marker, or of the intent beside it: recovery gets there by itself. */
  readonly recoverable: number;
  readonly digest: string;
  readonly head: string;
  readonly refs: ReadonlyMap<string, Oid>;
  /** In promoted packs, and in quarantines where asked for. */
  readonly objects: ReadonlyMap<Oid, ModelObject>;
}

type Files = ReadonlyMap<string, Buffer>;

/** Every file below a directory of the disk, by its path from there. */
type Look = (directory: string) => Files;

/** As a power cut now would leave it at the least. */
export function durableCopy(disk: SimulatedDisk, repositoryId: string, pushId?: string): Copy {
  return copyIn((directory) => disk.durableFiles(directory), repositoryId, pushId);
}

/** As it can be read now. */
export function presentCopy(disk: SimulatedDisk, repositoryId: string, pushId?: string): Copy {
  const look = (directory: string): Files =>
    new Map([...filesBelow(disk.find(directory))].map(([path, { data }]) => [path, data]));
  return copyIn(look, repositoryId, pushId);
}

/** An entry is being applied, or was when its process or its disk failed. */
export function isHalfApplied(disk: SimulatedDisk, id: string): boolean {
  const base = `store/repos/${id.slice(0, 2)}/${id}`;
  const [marker, intent] = ['state', 'intent'].map((name) => {
    const node = disk.find(`${base}/${name}`);
    return node?.kind === 'file' ? node.data : undefined;
  });
  const { generation = 0, recoverable } = stateOf(marker, intent);
  return recoverable > generation;
}

/** Names of everything in `quarantine/`. */
export function quarantinesOn(disk: SimulatedDisk): readonly string[] {
  const node = disk.find('store/quarantine');
  return node?.kind === 'directory' ? [...node.entries.keys()] : [];
}

function copyIn(look: Look, id: string, pushId?: string): Copy {
  const base = `store/repos/${id.slice(0, 2)}/${id}`;
  const files = look(base);
  const text = (name: string): string => files.get(name)?.toString('latin1') ?? '';
  const state = stateOf(files.get('state'), files.get('intent'));
  const refs = packedRefs(text('git/packed-refs'));
  for (const [path, data] of files) {
    if (path.startsWith('git/refs/') && !path.endsWith('.lock')) {
      refs.set(path.slice('git/'.length), data.toString('latin1').trim());
    }
  }
  const objects = new Map<Oid, ModelObject>();
  addObjects(files, 'git/objects/pack/', objects);
  const alternates = files.get('git/objects/info/alternates')?.toString('utf8') ?? '';
  for (const directory of borrowedFrom(`${base}/git/objects`, alternates)) {
    addObjects(look(`${directory}/pack`), '', objects);
  }
  if (pushId !== undefined) addObjects(look('store/quarantine'), `${id}.${pushId}.`, objects);
  return { ...state, head: text('git/HEAD').trim(), refs, objects };
}

function addObjects(files: Files, prefix: string, objects: Map<Oid, ModelObject>): void {
  for (const [path, data] of files) {
    if (!path.startsWith(prefix) || !path.endsWith('.pack')) continue;
    const index = files.get(path.replace(/\.pack$/, '.idx'));
    if (index === undefined || !isSound(index)) continue;
    for (const object of contentsOf(data)) objects.set(object.oid, object);
  }
}

const sound = new WeakMap<Buffer, boolean>();

function isSound(index: Buffer): boolean {
  const known = sound.get(index) ?? isWhole(index);
  sound.set(index, known);
  return known;
}

/** Of packs that were read before: what is on a disk is never changed in place. */
const decoded = new WeakMap<Buffer, readonly ModelObject[]>();

function contentsOf(pack: Buffer): readonly ModelObject[] {
  const contents = decoded.get(pack) ?? decodePack(pack) ?? [];
  decoded.set(pack, contents);
  return contents;
}

/** Object directories that one borrows from: gitrepository-layout(5), "objects/info/alternates". */
function borrowedFrom(directory: string, alternates: string): readonly string[] {
  return alternates
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const names = directory.split('/');
      for (const name of line.split('/')) {
        if (name === '..') names.pop();
        else names.push(name);
      }
      return names.join('/');
    });
}

function packedRefs(text: string): Map<string, Oid> {
  const refs = new Map<string, Oid>();
  for (const line of text.split('\n')) {
    const match = /^([0-9a-f]{40}) (refs\/.*)$/.exec(line);
    if (match !== null) refs.set(match[2] ?? '', match[1] ?? '');
  }
  return refs;
}

type State = Pick<Copy, 'generation' | 'recoverable' | 'digest'>;

/** Each file's first line counts, if its checksum is that of what precedes it. */
function stateOf(marker: Buffer | undefined, intent: Buffer | undefined): State {
  const [marked, intended] = [markOf(marker), markOf(intent)];
  if (marked === undefined || (intended?.recoverable ?? -1) > marked.recoverable) {
    return intended ?? { generation: undefined, recoverable: -1, digest: '' };
  }
  return marked;
}

type Mark = State & { readonly generation: number };

/** Of files that were read before: see `decoded`. */
const marks = new WeakMap<Buffer, Mark | 'none'>();

function markOf(file: Buffer | undefined): Mark | undefined {
  if (file === undefined) return undefined;
  const known = marks.get(file) ?? readMark(file.toString('latin1')) ?? 'none';
  marks.set(file, known);
  return known === 'none' ? undefined : known;
}

function readMark(file: string): Mark | undefined {
  try {
    const line = file.slice(0, file.indexOf('\n'));
    const { checksum, ...state } = recordOf(JSON.parse(line));
    const sum = createHash('sha256').update(JSON.stringify(state)).digest('hex');
    if (checksum !== sum.slice(0, 16)) return undefined;
    // Nothing has filled it: no copy yet, whatever it says.
    if (state['begun'] === true) return undefined;
    const generation = numberOf(state['generation']);
    const entries = recordOf(state['applying'])['entries'];
    const last = Array.isArray(entries) ? entries.map(recordOf).at(-1) : undefined;
    const recoverable = last === undefined ? generation : numberOf(last['generation']);
    return { generation, recoverable, digest: textOf(state['digest']) };
  } catch {
    return undefined;
  }
}

/** Of these objects and all that they lead to, what is not there. */
export function missingFrom(
  objects: ReadonlyMap<Oid, ModelObject>,
  tips: Iterable<Oid>,
): readonly Oid[] {
  const seen = new Set<Oid>();
  const missing: Oid[] = [];
  const open = [...tips];
  for (let oid = open.pop(); oid !== undefined; oid = open.pop()) {
    if (seen.has(oid)) continue;
    seen.add(oid);
    const object = objects.get(oid);
    if (object === undefined) missing.push(oid);
    else open.push(...object.links);
  }
  return missing;
}
