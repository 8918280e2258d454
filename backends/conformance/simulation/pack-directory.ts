import type { Oid } from '../../contract/objects.js';
import { decodePack, isWhole, type ModelObject } from './pack-model.js';
import type { DiskView, SimulatedDirectory } from './simulated-disk.js';

/** What was found in a directory of packs, and in which files. */
interface Found {
  /** The bytes of each pack and its index, one after the other. */
  readonly files: readonly Buffer[];
  readonly objects: ReadonlyMap<Oid, ModelObject>;
}

const found = new WeakMap<DiskView, WeakMap<SimulatedDirectory, Found>>();

/** Objects in the packs of a directory that have a sound index. Looked for again when other bytes lie there. */
export function objectsIn(
  directory: SimulatedDirectory,
  view: DiskView,
): ReadonlyMap<Oid, ModelObject> {
  const files = packFiles(directory, view);
  const known = found.get(view) ?? new WeakMap<SimulatedDirectory, Found>();
  found.set(view, known);
  const before = known.get(directory);
  const isSame =
    before?.files.length === files.length && files.every((file, i) => file === before.files[i]);
  if (before !== undefined && isSame) return before.objects;
  const objects = new Map<Oid, ModelObject>();
  for (let i = 0; i < files.length; i += 2) addObjects(files[i], files[i + 1], objects);
  known.set(directory, { files, objects });
  return objects;
}

function packFiles(directory: SimulatedDirectory, view: DiskView): readonly Buffer[] {
  const files: Buffer[] = [];
  const entries = view.entries(directory);
  for (const [name, pack] of entries) {
    if (pack.kind !== 'file' || !name.endsWith('.pack')) continue;
    const index = entries.get(`${name.slice(0, -'.pack'.length)}.idx`);
    if (index?.kind === 'file') files.push(view.data(pack), view.data(index));
  }
  return files;
}

function addObjects(
  pack: Buffer | undefined,
  index: Buffer | undefined,
  objects: Map<Oid, ModelObject>,
): void {
  if (pack === undefined || index === undefined || !isSoundIndex(index)) return;
  for (const object of contentsOf(pack) ?? []) objects.set(object.oid, object);
}

const indexes = new WeakMap<Buffer, boolean>();

export function isSoundIndex(data: Buffer): boolean {
  const sound = indexes.get(data) ?? isWhole(data);
  indexes.set(data, sound);
  return sound;
}

/** Of packs that were read before: what is on a disk is never changed in place. */
const decoded = new WeakMap<Buffer, readonly ModelObject[] | 'damaged'>();

/** Undefined for a pack that is not whole. */
export function contentsOf(data: Buffer): readonly ModelObject[] | undefined {
  const contents = decoded.get(data) ?? decodePack(data) ?? 'damaged';
  decoded.set(data, contents);
  return contents === 'damaged' ? undefined : contents;
}
