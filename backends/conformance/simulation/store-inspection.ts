import { hash } from 'node:crypto';
import type { Oid } from '../../contract/objects.js';
import {
  type KeptUpdates,
  numberOf,
  type ObservedEntry,
  recordOf,
  textOf,
  updatesOf,
} from './commit-observer.js';
import { objectsIn } from './pack-directory.js';
import type { ModelObject } from './pack-model.js';
import type { DiskNode, DiskView, SimulatedDisk } from './simulated-disk.js';
import { durable, nodeAt, present } from './simulated-disk.js';

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

/** As a power cut now would leave it at the least. */
export function durableCopy(disk: SimulatedDisk, repositoryId: string, pushId?: string): Copy {
  return copyIn(disk, durable, { id: repositoryId, pushId });
}

/** As it can be read now. */
export function presentCopy(disk: SimulatedDisk, repositoryId: string, pushId?: string): Copy {
  return copyIn(disk, present, { id: repositoryId, pushId });
}

/** How far a copy is: what its marker and its intent say. */
export type Progress = Pick<Copy, 'generation' | 'recoverable' | 'digest'>;

export function durableProgress(disk: SimulatedDisk, repositoryId: string): Progress {
  return progressOf(nodeAt(disk.root, placeOfCopy(repositoryId), durable), durable);
}

export function presentProgress(disk: SimulatedDisk, repositoryId: string): Progress {
  return progressOf(nodeAt(disk.root, placeOfCopy(repositoryId), present), present);
}

/** Updates that are too large for the log, if a power cut now would leave them. */
export function durableUpdates(
  disk: SimulatedDisk,
  kept: KeptUpdates,
): ObservedEntry['updates'] | undefined {
  return updatesIn(disk, kept, durable);
}

/** Updates that are too large for the log, if they can be read now. */
export function presentUpdates(
  disk: SimulatedDisk,
  kept: KeptUpdates,
): ObservedEntry['updates'] | undefined {
  return updatesIn(disk, kept, present);
}

function updatesIn(
  disk: SimulatedDisk,
  { repositoryId, pushId, updatesDigest }: KeptUpdates,
  view: DiskView,
): ObservedEntry['updates'] | undefined {
  const all = nodeAt(disk.root, 'store/quarantine', view);
  for (const [quarantine, node] of all?.kind === 'directory' ? view.entries(all) : []) {
    if (node.kind === 'file' || !quarantine.startsWith(`${repositoryId}.${pushId}.`)) continue;
    for (const [name, file] of view.entries(node)) {
      if (file.kind === 'directory' || !name.startsWith('updates-')) continue;
      const data = view.data(file);
      if (hash('sha256', data) === updatesDigest)
        return updatesOf(JSON.parse(data.toString('utf8')));
    }
  }
  return undefined;
}

/** An entry is being applied, or was when its process or its disk failed. */
export function isHalfApplied(disk: SimulatedDisk, id: string): boolean {
  const { generation = 0, recoverable } = presentProgress(disk, id);
  return recoverable > generation;
}

/** Names of everything in `quarantine/`. */
export function quarantinesOn(disk: SimulatedDisk): readonly string[] {
  const node = disk.find('store/quarantine');
  return node?.kind === 'directory' ? [...node.entries.keys()] : [];
}

function placeOfCopy(id: string): string {
  return `store/repos/${id.slice(0, 2)}/${id}`;
}

function dataAt(node: DiskNode | undefined, path: string, view: DiskView): Buffer | undefined {
  const file = nodeAt(node, path, view);
  return file?.kind === 'file' ? view.data(file) : undefined;
}

function copyIn(
  disk: SimulatedDisk,
  view: DiskView,
  { id, pushId }: { readonly id: string; readonly pushId: string | undefined },
): Copy {
  const base = placeOfCopy(id);
  const node = nodeAt(disk.root, base, view);
  const text = (name: string): string => dataAt(node, name, view)?.toString('latin1') ?? '';
  const refs = packedRefs(text('git/packed-refs'));
  addRefs('refs', nodeAt(node, 'git/refs', view), { view, refs });
  const alternates = dataAt(node, 'git/objects/info/alternates', view)?.toString('utf8') ?? '';
  const borrowed = borrowedFrom(`${base}/git/objects`, alternates);
  const packs = [
    nodeAt(node, 'git/objects/pack', view),
    ...borrowed.map((directory) => nodeAt(disk.root, `${directory}/pack`, view)),
    ...(pushId === undefined ? [] : quarantined(disk, view, `${id}.${pushId}.`)),
  ];
  const progress = progressOf(node, view);
  return { ...progress, head: text('git/HEAD').trim(), refs, objects: together(packs, view) };
}

function addRefs(
  path: string,
  node: DiskNode | undefined,
  { view, refs }: { readonly view: DiskView; readonly refs: Map<string, Oid> },
): void {
  if (node?.kind !== 'directory') return;
  for (const [name, child] of view.entries(node)) {
    const below = `${path}/${name}`;
    if (child.kind === 'directory') addRefs(below, child, { view, refs });
    else if (!name.endsWith('.lock')) refs.set(below, view.data(child).toString('latin1').trim());
  }
}

/** Directories with packs in the quarantines whose names begin so, however deep. */
function quarantined(disk: SimulatedDisk, view: DiskView, prefix: string): readonly DiskNode[] {
  const node = nodeAt(disk.root, 'store/quarantine', view);
  if (node?.kind !== 'directory') return [];
  return [...view.entries(node)].flatMap(([name, child]) =>
    name.startsWith(prefix) ? directoriesIn(child, view) : [],
  );
}

function directoriesIn(node: DiskNode, view: DiskView): readonly DiskNode[] {
  if (node.kind === 'file') return [];
  const below = [...view.entries(node).values()].flatMap((child) => directoriesIn(child, view));
  return [node, ...below];
}

function together(
  packs: readonly (DiskNode | undefined)[],
  view: DiskView,
): ReadonlyMap<Oid, ModelObject> {
  const all = packs.flatMap((node) => (node?.kind === 'directory' ? [objectsIn(node, view)] : []));
  const some = all.filter((objects) => objects.size > 0);
  const [only] = some;
  return some.length === 1 && only !== undefined ? only : new Map(some.flatMap((it) => [...it]));
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

/** Each file's first line counts, if its checksum is that of what precedes it. */
function progressOf(node: DiskNode | undefined, view: DiskView): Progress {
  const marked = markOf(dataAt(node, 'state', view));
  const intended = markOf(dataAt(node, 'intent', view));
  if (marked === undefined || (intended?.recoverable ?? -1) > marked.recoverable) {
    return intended ?? { generation: undefined, recoverable: -1, digest: '' };
  }
  return marked;
}

type Mark = Progress & { readonly generation: number };

/** Of files that were read before: what is on a disk is never changed in place. */
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
    const sum = hash('sha256', JSON.stringify(state));
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
