import type { Host } from './hosts.js';
import type { SimulatedDisk } from './simulated-disk.js';
import { durableProgress } from './store-inspection.js';

/** The directory of a copy, on any disk. */
const copyDirectory = /^store\/repos\/[0-9a-f]{2}\/([0-9a-f]{32})$/;

/**
 * Copies that were made while others were further: whatever fills them has as much as the least of those, so that nobody
 * may be shown anything older from them, as what lies there before they are filled would be.
 */
export class BegunCopies {
  readonly #disks: () => readonly SimulatedDisk[];
  readonly #violate: (text: string) => void;
  readonly #least = new WeakMap<SimulatedDisk, Map<string, number>>();

  constructor(disks: () => readonly SimulatedDisk[], violate: (text: string) => void) {
    this.#disks = disks;
    this.#violate = violate;
  }

  /** A directory was made on a disk. */
  made(disk: SimulatedDisk, path: string): void {
    const id = copyDirectory.exec(path)?.[1];
    if (id === undefined) return;
    const others = this.#disks().flatMap((other) => {
      const { generation } = durableProgress(other, id);
      return generation === undefined || other === disk ? [] : [generation];
    });
    const known = this.#least.get(disk) ?? new Map<string, number>();
    this.#least.set(disk, known);
    known.set(id, others.length === 0 ? 0 : Math.min(...others));
  }

  /** A read begins at the copy that a host has now. */
  shown({ name, disk }: Pick<Host, 'name' | 'disk'>, id: string, generation: number): void {
    const least = this.#least.get(disk)?.get(id) ?? 0;
    if (generation >= least) return;
    this.#violate(
      `${name} shows generation ${generation} of a copy that it began when all others had ${least}`,
    );
  }
}
