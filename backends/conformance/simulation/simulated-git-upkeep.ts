import type { Oid } from '../../contract/objects.js';
import { closureOf, encodeIndex, encodePack, type ModelObject, packName } from './pack-model.js';
import { change, type Place } from './simulated-files.js';
import { type GitRun, objectsOf } from './git-run.js';
import { removeEmpty } from './simulated-ref-update.js';

/** `git init --bare --template=`. */
export async function initRepository({ place }: GitRun): Promise<void> {
  const { disk, path } = place;
  for (const name of ['objects/info', 'objects/pack', 'refs/heads', 'refs/tags']) {
    await change(place, 'write', () => disk.makeDirectory(`${path}/${name}`, true));
  }
  for (const [name, text] of [
    ['HEAD', 'ref: refs/heads/main\n'],
    ['config', '[core]\n\tbare = true\n'],
  ] as const) {
    await change(place, 'write', () =>
      disk.write(disk.create(`${path}/${name}`, false), Buffer.from(text)),
    );
  }
}

/**
 * `git pack-refs --all`, with `--prune` or without: as of git 2.39 (strace), which syncs packed-refs and no directory,
 * and removes loose refs, one at a time under their locks, when that of packed-refs is gone.
 */
export async function packRefs({ place, store, args }: GitRun): Promise<boolean> {
  const { disk } = place;
  const lock = `${store.gitDir}/packed-refs.lock`;
  if (disk.find(lock) !== undefined) return false;
  await change(place, 'write', () => disk.create(lock, true));
  const refs = store.refs();
  const text = [...refs].map(([name, oid]) => `${oid} ${name}\n`).join('');
  await writeFile(place, `${store.gitDir}/packed-refs.new`, Buffer.from(text));
  await change(place, 'rename', () =>
    disk.rename(`${store.gitDir}/packed-refs.new`, `${store.gitDir}/packed-refs`),
  );
  await change(place, 'write', () => disk.unlink(lock));
  if (!args.includes('--prune')) return true;
  for (const [name, oid] of refs) {
    if (store.looseRef(name) === oid && !(await pruneRef({ place, store }, name, oid)))
      return false;
  }
  return true;
}

async function pruneRef(
  { place, store }: Pick<GitRun, 'place' | 'store'>,
  name: string,
  oid: Oid,
): Promise<boolean> {
  const { disk } = place;
  const path = `${store.gitDir}/${name}`;
  if (disk.find(`${path}.lock`) !== undefined) return false;
  await change(place, 'write', () => disk.create(`${path}.lock`, true));
  if (store.looseRef(name) === oid) await change(place, 'write', () => disk.unlink(path));
  await change(place, 'write', () => disk.unlink(`${path}.lock`));
  const parent = name.slice(0, name.lastIndexOf('/'));
  if (parent.split('/').length > 2) {
    await change(place, 'write', () => removeEmpty(disk, `${store.gitDir}/${parent}`));
  }
  return true;
}

export interface Repacking {
  readonly kind: 'geometric' | 'full';
  /** Keep what nothing reaches, in a pack of its own. */
  readonly cruft: boolean;
  /** Of that, only what is younger. */
  readonly expireBeforeMs?: number;
}

/** `git repack -d`. Packs under `.keep` are neither read into the new one nor removed. */
export async function repack(run: GitRun, repacking: Repacking): Promise<boolean> {
  const { store, place } = run;
  const [directory = ''] = run.objectDirectories;
  const packs = store.packs(directory).filter(({ kept }) => !kept);
  // It dies of what it cannot read, and leaves everything as it is.
  if (packs.some(({ damaged }) => damaged)) return false;
  const times = timesOf(place, directory, packs);
  const objects = new Map(packs.flatMap(({ contents }) => contents.map((it) => [it.oid, it])));
  const all = objectsOf(run);
  const tips = [...store.refs().values()];
  const reachable = closureOf(tips, (oid) => all.get(oid));
  if (reachable === undefined) return false;
  const [wanted, rest]: [ModelObject[], ModelObject[]] = [[], []];
  for (const object of objects.values()) {
    if (repacking.kind === 'geometric' || reachable.has(object.oid)) wanted.push(object);
    else if (isKept(object, repacking, times)) rest.push(object);
  }
  const made = new Set<string>();
  if (wanted.length > 0) made.add(await writePack(place, directory, wanted));
  if (rest.length > 0) made.add(await writeCruft(place, directory, rest, times));
  for (const { name } of packs) {
    if (made.has(name)) continue;
    for (const suffix of ['pack', 'idx', 'mtimes']) {
      const path = `${directory}/pack/${name}.${suffix}`;
      await change(place, 'write', () => {
        if (place.disk.find(path) !== undefined) place.disk.unlink(path);
      });
    }
  }
  return true;
}

function isKept(
  { oid }: ModelObject,
  { cruft, expireBeforeMs = -Infinity }: Repacking,
  times: ReadonlyMap<Oid, number>,
): boolean {
  return cruft && (times.get(oid) ?? 0) >= expireBeforeMs;
}

/** When each object was last known to be wanted: its pack's time, or what a cruft pack says. */
function timesOf(
  { disk }: Place,
  directory: string,
  packs: readonly { readonly name: string; readonly contents: readonly ModelObject[] }[],
): Map<Oid, number> {
  const times = new Map<Oid, number>();
  for (const { name, contents } of packs) {
    const path = `${directory}/pack/${name}`;
    const table = disk.find(`${path}.mtimes`);
    const packTimeMs = disk.find(`${path}.pack`)?.modifiedMs ?? 0;
    contents.forEach(({ oid }, index) => {
      const listed =
        table?.kind === 'file' ? table.data.readUInt32BE(12 + 4 * index) * 1000 : packTimeMs;
      times.set(oid, Math.max(times.get(oid) ?? 0, listed));
    });
  }
  return times;
}

async function writePack(
  place: Place,
  directory: string,
  objects: readonly ModelObject[],
): Promise<string> {
  const name = packName(objects);
  const path = `${directory}/pack/${name}`;
  if (place.disk.find(`${path}.idx`) !== undefined) return name;
  await placeFile(place, `${path}.pack`, encodePack(objects));
  await placeFile(place, `${path}.idx`, encodeIndex(objects));
  return name;
}

/** gitformat-pack(5), "pack-*.mtimes files": a header of 12 bytes, a time for each object, two checksums. */
async function writeCruft(
  place: Place,
  directory: string,
  objects: readonly ModelObject[],
  times: ReadonlyMap<Oid, number>,
): Promise<string> {
  const table = Buffer.alloc(12 + 4 * objects.length + 40);
  table.write('MTME', 'latin1');
  table.writeUInt32BE(1, 4);
  table.writeUInt32BE(1, 8);
  objects.forEach(({ oid }, index) => {
    table.writeUInt32BE(Math.floor((times.get(oid) ?? 0) / 1000), 12 + 4 * index);
  });
  await placeFile(place, `${directory}/pack/${packName(objects)}.mtimes`, table);
  return writePack(place, directory, objects);
}

async function placeFile(place: Place, path: string, data: Buffer): Promise<void> {
  const temporary = `${path.slice(0, path.lastIndexOf('/'))}/tmp_${place.process.random.hex(8)}`;
  await writeFile(place, temporary, data);
  await change(place, 'rename', () => place.disk.rename(temporary, path));
}

async function writeFile(place: Place, path: string, data: Buffer): Promise<void> {
  const file = await change(place, 'write', () => {
    const made = place.disk.create(path, false);
    place.disk.write(made, data);
    return made;
  });
  await change(place, 'fsync', () => place.disk.sync(file));
}
