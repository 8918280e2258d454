import type { StoreShape } from '../contract/backend.js';
import type { Clock } from '../contract/environment.js';
import type { ObjectFormat } from '../contract/objects.js';
import { readStoreShape } from '../git/store-shape.js';

/** It costs a listing and a stat of every pack. */
const keptMs = 10_000;

interface Kept {
  readonly generation: number;
  readonly readAtMs: number;
  readonly shape: StoreShape;
}

/** The shape of a repository's object store, as it was in a generation, at most `keptMs` ago. */
export class KeptShape {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #objectsDirectory: string;
  #kept: Kept | undefined;

  constructor(clock: Pick<Clock, 'monotonicMs'>, objectsDirectory: string) {
    this.#clock = clock;
    this.#objectsDirectory = objectsDirectory;
  }

  async at(generation: number, objectFormat: ObjectFormat): Promise<StoreShape> {
    const nowMs = this.#clock.monotonicMs();
    const kept = this.#kept;
    if (kept?.generation === generation && nowMs < kept.readAtMs + keptMs) return kept.shape;
    const shape = await readStoreShape(this.#objectsDirectory, objectFormat);
    this.#kept = { generation, readAtMs: nowMs, shape };
    return shape;
  }

  /** The packs have changed without a generation. */
  forget(): void {
    this.#kept = undefined;
  }
}
