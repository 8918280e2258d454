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

/** As a power cut now would leave it at the least. */
export function durableCopy(disk: SimulatedDisk, repositoryId: string, pushId?: string): Copy {
  return copyIn(disk.durableFiles('store'), repositoryId, pushId);
}

/** As it can be read now. */
export function presentCopy(disk: SimulatedDisk, repositoryId: string, pushId?: string): Copy {
  const files = new Map<string, Buffer>();
  for (const [path, { data }] of filesBelow(disk.find('store'))) files.set(path, data);
  return copyIn(files, repositoryId, pushId);
}

/** Names of everything in `quarantine/`. */
export function quarantinesOn(disk: SimulatedDisk): readonly string[] {
  const node = disk.find('store/quarantine');
  return node?.kind === 'directory' ? [...node.entries.keys()] : [];
}

function copyIn(files: Files, id: string, pushId?: string): Copy {
  const base = `repos/${id.slice(0, 2)}/${id}/`;
  const text = (name: string): string => files.get(`${base}${name}`)?.toString('latin1') ?? '';
  const state = stateOf(text('state'), text('intent'));
  const refs = packedRefs(text('git/packed-refs'));
  const objects = new Map<Oid, ModelObject>();
  const directories = [`${base}git/objects`, ...borrowedFrom(`${base}git/objects`, files)];
  for (const [path, data] of files) {
    if (path.startsWith(`${base}git/refs/`) && !path.endsWith('.lock')) {
      const name = path.slice(`${base}git/`.length);
      refs.set(name, data.toString('latin1').trim());
    }
    const counts =
      directories.some((directory) => path.startsWith(`${directory}/pack/`)) ||
      (pushId !== undefined && path.startsWith(`quarantine/${id}.${pushId}.`));
    if (!counts || !path.endsWith('.pack')) continue;
    const index = files.get(path.replace(/\.pack$/, '.idx'));
    if (index === undefined || !isWhole(index)) continue;
    for (const object of decodePack(data) ?? []) objects.set(object.oid, object);
  }
  return { ...state, head: text('git/HEAD').trim(), refs, objects };
}

/** Object directories that one borrows from: gitrepository-layout(5), "objects/info/alternates". */
function borrowedFrom(directory: string, files: Files): readonly string[] {
  const text = files.get(`${directory}/info/alternates`)?.toString('utf8') ?? '';
  return text
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
function stateOf(marker: string, intent: string): State {
  const [marked, intended] = [markOf(marker), markOf(intent)];
  if (marked === undefined || (intended?.recoverable ?? -1) > marked.recoverable) {
    return intended ?? { generation: undefined, recoverable: -1, digest: '' };
  }
  return marked;
}

function markOf(file: string): (State & { generation: number }) | undefined {
  try {
    const line = file.slice(0, file.indexOf('\n'));
    const { checksum, ...state } = recordOf(JSON.parse(line));
    const sum = createHash('sha256').update(JSON.stringify(state)).digest('hex');
    if (checksum !== sum.slice(0, 16)) return undefined;
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
