import { join } from 'node:path';
import { QuorateError } from '../../contract/errors.js';
import type { Oid } from '../../contract/objects.js';
import type { IndexedPack, IndexPackRequest, PackIndexer } from '../../git/pack-indexer.js';
import { closureOf, encodeIndex, encodePack, packName, readPack } from './pack-model.js';
import { change, placeOf } from './simulated-files.js';
import type { SimulatedProcess } from './simulated-process.js';

/** Takes packs of the model (pack-model.ts) into quarantines, as durably as the real one promises. */
export class SimulatedIndexer implements PackIndexer {
  readonly description = 'simulated';
  readonly queued = 0;
  readonly #process: SimulatedProcess;

  constructor(process: SimulatedProcess) {
    this.#process = process;
  }

  async index(request: IndexPackRequest): Promise<IndexedPack> {
    const objects = await readPack(request.pack);
    await this.#process.effect(this.#process.random.between(0.3, 3), () => undefined);
    if (request.signal.aborted) throw new QuorateError('cancelled', 'the caller gave up');
    const pack = encodePack(objects);
    const size = { objectCount: objects.length, sizeBytes: pack.length, engine: 'git' } as const;
    if (objects.length === 0) return { name: undefined, ...size };
    const place = placeOf(request.quarantinePackDir);
    const name = packName(objects);
    const files = [`${name}.pack`, `${name}.idx`];
    const later = request.syncsLater === true;
    for (const [suffix, data] of [
      ['pack', pack],
      ['idx', encodeIndex(objects)],
    ] as const) {
      const file = await change(place, 'write', () => {
        const made = place.disk.create(`${place.path}/${name}.${suffix}`, true);
        place.disk.write(made, data);
        return made;
      });
      if (!later) await change(place, 'fsync', () => place.disk.sync(file));
    }
    const directory = request.quarantinePackDir;
    if (!later) {
      await change(place, 'fsync', () => place.disk.sync(place.disk.directory(place.path)));
    }
    const unsynced = [...files.map((file) => join(directory, file)), directory];
    const taken = { name, ...size, ...(later ? { unsynced } : {}) };
    // Sometimes it is not plain, and a walk has to find out.
    if (this.#process.random.chance(0.3)) return taken;
    const own = new Map(objects.map((object) => [object.oid, object]));
    const boundary = new Set<Oid>();
    closureOf(own.keys(), (oid) => {
      if (!own.has(oid)) boundary.add(oid);
      return own.get(oid) ?? { oid, type: 'commit', links: [] };
    });
    const named = (type: 'commit' | 'tag'): Oid[] =>
      [...own.values()].flatMap((object) => (object.type === type ? [object.oid] : []));
    const closure = { commits: named('commit'), tags: named('tag'), boundary: [...boundary] };
    return { ...taken, closure, files };
  }

  async close(): Promise<void> {}
}
