import { Hang } from './hanging-disk.js';
import type { StorageHost } from './hosts.js';
import type { SeededRandom } from './seeded-random.js';
import type { SimulatedDisk } from './simulated-disk.js';
import type { World } from './world.js';

type Fault = (world: World, random: SeededRandom) => void;
type HangWorld = Pick<World, 'scheduler' | 'say' | 'count' | 'crashStore' | 'restartLater'>;

export const hangFaults = {
  'disk hangs': (world, random) => {
    const host = random.pick(world.stores);
    hangSoon(world, random, host);
  },
} as const satisfies Readonly<Record<string, Fault>>;

const ends = ['goes on', 'goes on', 'fails', 'power cut'] as const;

/** From now on, or from the middle of something that its process does to it. */
export function hangSoon(
  world: HangWorld,
  random: SeededRandom,
  host: StorageHost,
  longMs = random.between(1_000, random.pick([5_000, 30_000, 300_000])),
): void {
  const spring = (): void => hang(world, random, { host, longMs });
  if (random.chance(0.4)) spring();
  else host.process?.trap(random.pick(['disk', 'fsync', 'rename']), 1 + random.below(20), spring);
}

/** For a second, or for minutes; in the end it goes on, fails, or its machine is started anew. */
function hang(
  world: HangWorld,
  random: SeededRandom,
  { host, longMs }: { readonly host: StorageHost; readonly longMs: number },
): void {
  const { disk } = host;
  if (disk.hang !== undefined) return;
  const begun = new Hang(random.pick(['everything', 'everything', 'changes', 'syncs']));
  disk.hang = begun;
  world.count(`disks hang: ${begun.kind}`);
  world.say(`the disk of ${host.name} hangs (${begun.kind}) for ${longMs.toFixed(0)} ms`);
  if (random.chance(0.2)) {
    world.scheduler.after(random.between(0, longMs), () => {
      if (disk.hang !== begun || host.disk !== disk || host.process?.alive !== true) return;
      world.count('stores killed while their disks hang');
      world.crashStore(host);
      world.restartLater(host, random.between(50, 5_000));
    });
  }
  world.scheduler.after(random.between(10_000, 20_000), () => {
    if (disk.hang === begun) finds(world, host, { disk, hangs: true });
  });
  world.scheduler.after(longMs, () => {
    if (disk.hang === begun && host.disk === disk) endHang(world, host, random);
  });
}

/** So often a disk is looked at. */
const lookMs = 5_000;

/** The process says in its record what it found; nothing of a disk that was lost meanwhile. */
function finds(
  world: HangWorld,
  host: StorageHost,
  { disk, hangs }: { readonly disk: SimulatedDisk; readonly hangs: boolean },
): void {
  if (host.disk !== disk || (!hangs && disk.hang !== undefined)) return;
  disk.foundHanging = hangs;
  world.say(`the disk of ${host.name} was found ${hangs ? 'to hang' : 'well'}`);
  disk.found?.();
}

/** It goes on, or fails for a while, or its machine loses its power and starts anew. */
export function endHang(world: HangWorld, host: StorageHost, random?: SeededRandom): void {
  const { disk, name } = host;
  const { hang: over } = disk;
  if (over === undefined) return;
  const end = random?.pick(ends) ?? 'goes on';
  world.count(`hanging disks: ${end}`);
  world.say(`the disk of ${name} hangs no more: ${end}`);
  disk.hang = undefined;
  if (disk.foundHanging)
    world.scheduler.after(lookMs, () => finds(world, host, { disk, hangs: false }));
  if (end === 'power cut' && random !== undefined) {
    world.crashStore(host, random.pick(['everything', 'a suffix', 'any part']));
    world.restartLater(host, random.between(50, 12_000));
  }
  if (end === 'fails' && random !== undefined) {
    disk.failing = true;
    world.scheduler.after(random.between(10, 2_000), () => (disk.failing = false));
  }
  over.end();
}
