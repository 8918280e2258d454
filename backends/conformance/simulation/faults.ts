import assert from 'node:assert/strict';
import { keys, prefixEnd } from '../../contract/keys.js';
import { coordinatorPlace } from './simulated-coordinator.js';
import { left, losable, Losses } from './losses.js';
import { endHang, hangFaults } from './disk-hangs.js';
import { membershipFaults } from './membership-faults.js';
import type { CrashPoint } from './simulated-process.js';
import type { PowerCut } from './simulated-disk.js';
import { fairWeather } from './network.js';
import type { SeededRandom } from './seeded-random.js';
import { isHalfApplied } from './store-inspection.js';
import type { FrontEndHost, StorageHost } from './hosts.js';
import type { FaultKind } from './trouble-kinds.js';
import type { World } from './world.js';

type Fault = (world: World, random: SeededRandom) => void;

const cuts: readonly (PowerCut | undefined)[] = ['everything', 'a suffix', 'any part', undefined];
const points: readonly Exclude<CrashPoint, 'any'>[] = ['fsync', 'rename', 'disk', 'message'];
/** A crash comes at one of so many of these, since some are rarer than others. */
const within: Readonly<Record<Exclude<CrashPoint, 'any'>, number>> = {
  fsync: 20,
  rename: 8,
  disk: 40,
  message: 40,
};

const faults: Readonly<Record<FaultKind, Fault>> = {
  ...membershipFaults,
  ...hangFaults,
  'store crashes': (world, random) => crashStore(world, random.pick(world.stores), random),
  'store crashes at a step': (world, random) => {
    const host = random.pick(world.stores);
    const point = random.pick(points);
    const spring = (): void => {
      world.count(`crashes at: ${point}`);
      crashStore(world, host, random);
    };
    host.process?.trap(point, 1 + random.below(within[point]), spring);
  },
  'front-end crashes': (world, random) =>
    crashFrontEnd(world, random.pick(world.frontEnds), random),
  'front-end crashes at a message': (world, random) => {
    const host = random.pick(world.frontEnds);
    const spring = (): void => crashFrontEnd(world, host, random);
    host.process?.trap('message', 1 + random.below(60), spring);
  },
  partition: ({ network, places, scheduler }, random) => {
    const all = [...places, coordinatorPlace];
    const [one = '', ...others] = random.shuffled(all);
    const away = random.chance(0.5) ? others.slice(0, 1) : others;
    const direction = random.below(3);
    for (const other of away) {
      if (direction !== 1) network.cut(one, other);
      if (direction !== 2) network.cut(other, one);
    }
    const longest = random.chance(0.15) ? 45_000 : 14_000;
    scheduler.after(random.between(200, longest), () => network.heal());
  },
  'bad network': ({ network, scheduler }, random) => {
    network.weather = {
      loss: random.pick([0, 0.01, 0.08]),
      late: random.pick([0, 0.01, 0.04, 0.15]),
      slow: random.pick([0, 0.05, 0.3]),
    };
    scheduler.after(random.between(1_000, 15_000), () => (network.weather = fairWeather));
  },
  'slow network': ({ network, scheduler }, random) => {
    network.weather = { loss: 0, late: 0, slow: random.between(0.3, 0.7) };
    scheduler.after(random.between(1_000, 15_000), () => (network.weather = fairWeather));
  },
  maintenance: ({ stores, observer }, random) => {
    const { replica } = random.pick(stores);
    for (const id of observer.configurations.keys()) {
      void replica?.maintain(id, { signal: new AbortController().signal }).catch(() => undefined);
    }
  },
  'leader lost': ({ coordinator }, random) =>
    coordinator.loseLeader(random.between(200, random.chance(0.15) ? 40_000 : 4_000)),
  'long outage': ({ coordinator }, random) =>
    coordinator.loseLeader(random.between(25_000, 40_000)),
  compaction: ({ coordinator }) => coordinator.compact(),
  'compaction behind a cut': ({ coordinator, network, frontEnds, stores, scheduler }, random) => {
    const { name } = random.pick([...frontEnds, ...stores]);
    network.cut(coordinatorPlace, name);
    scheduler.after(random.between(100, 3_000), () => {
      coordinator.compact();
      network.heal();
    });
  },
  'coordinator restored at the end': (world) => {
    world.restoredAtEnd = true;
  },
  'watches lag': ({ coordinator, scheduler }, random) => {
    coordinator.watchLagMs = random.between(50, 4_000);
    scheduler.after(random.between(1_000, 10_000), () => (coordinator.watchLagMs = 5));
  },
  pause: ({ stores, frontEnds }, random) =>
    random.pick([...stores, ...frontEnds]).process?.pause(random.between(50, 25_000)),
  'pause at a message': ({ frontEnds, stores }, random) => {
    const { process } = random.pick([...frontEnds, ...stores]);
    const spring = (): void => process?.pause(random.between(5_000, 30_000));
    process?.trap('message', 1 + random.below(60), spring);
  },
  'pause under a lock': (world, random) => {
    const longMs = random.between(12_000, 30_000);
    whenLocked(world, random.pick(world.frontEnds), (host) => {
      world.say(`${host.name} stands still for ${longMs.toFixed(0)} ms`);
      host.process?.pause(longMs);
    });
  },
  'stores restart while a push stands still': (world, random) => {
    const host = random.pick(world.frontEnds);
    // Longer than its lease lives, or so short that nobody misses it.
    const longMs = random.pick([random.between(300, 3_000), random.between(8_000, 20_000)]);
    whenPrepared(world, random, () => {
      world.say(`${host.name} stands still for ${longMs.toFixed(0)} ms, and stores restart`);
      host.process?.pause(longMs);
      for (const store of world.stores) {
        world.scheduler.after(longMs * random.between(0.5, 0.9), () => {
          if (store.process?.alive !== true) return;
          world.crashStore(store);
          world.restartLater(store, random.between(20, 100));
        });
      }
    });
  },
  'repository deleted under a lock': (world, random) => {
    // So that its head stays for a while: its files cannot go everywhere.
    const away = random.pick(world.stores);
    const longMs = random.between(1_000, 6_000);
    whenLocked(world, random.pick(world.frontEnds), (host, id) => {
      const other = world.frontEnds.find((one) => one !== host && one.frontEnd !== undefined);
      if (other?.frontEnd === undefined || !world.mayBeDeleted.has(id)) return;
      world.say(`${host.name} stands still, and ${id} is deleted meanwhile`);
      world.count('repositories deleted under a lock');
      host.process?.pause(longMs);
      crashStore(world, away, random);
      world.history.deleted.add(id);
      void other.frontEnd.backend.repositories.delete(id).catch(() => undefined);
    });
  },
  'majority lost': (world, random) => {
    const lost = losable(world, random);
    if (lost === undefined) return;
    world.mayLoseDisk = false;
    world.losses = new Losses(world, random);
    // Those that are left were away before, and know of nothing that was pushed meanwhile; or of some of it.
    const how = random.pick(['away', 'away', 'cut off', 'there']);
    const aheadMs = how === 'there' ? 0 : random.between(1_000, 5_000);
    for (const host of aheadMs === 0 ? [] : left(world, lost)) {
      if (how === 'cut off') cutOff(world, host);
      else {
        world.crashStore(host);
        world.restartLater(host, aheadMs + random.between(0, 5_000));
      }
    }
    world.scheduler.after(aheadMs, () => {
      if (how === 'cut off') world.network.heal();
      world.losses?.lose(lost);
    });
  },
  'disk lost': (world, random) => {
    // One at a time is what a replica set is for; a copy on one store alone is lost with it.
    if (!world.mayLoseDisk) return;
    world.mayLoseDisk = false;
    const host = random.pick(world.stores);
    world.wipe(host);
    world.restartLater(host, random.between(50, 40_000));
  },
  'flipped bits': (world, random) => {
    // As with lost disks: what one disk does to one copy is what the others are for.
    if (!world.mayLoseDisk && world.decaying === undefined) return;
    world.mayLoseDisk = false;
    const host = (world.decaying ??= random.pick(world.stores));
    if (random.chance(0.25))
      whenHalfApplied(world, host, (id) => flipBit(world, random, { host, id }));
    else flipBit(world, random, { host });
  },
  'disk full': ({ stores, scheduler }, random) => {
    const { disk } = random.pick(stores);
    disk.full = true;
    scheduler.after(random.between(100, 5_000), () => (disk.full = false));
  },
  'disk fails': ({ stores, scheduler }, random) => {
    const { disk } = random.pick(stores);
    disk.failing = true;
    scheduler.after(random.between(10, 2_000), () => (disk.failing = false));
  },
};

/** From the other stores and one front-end: pushes of others come to it, and what they build on does not. */
function cutOff({ network, stores, frontEnds }: World, { name }: StorageHost): void {
  for (const other of [...stores, ...frontEnds.slice(0, 1)]) {
    if (other.name === name) continue;
    network.cut(name, other.name);
    network.cut(other.name, name);
  }
}

/** Calls `then` in the moment in which a front-end holds the locks of a push, if that comes soon. */
function whenLocked(
  world: World,
  host: FrontEndHost,
  then: (host: FrontEndHost, repositoryId: string) => void,
): void {
  const look = (triesLeft: number): void => {
    if (host.process?.paused === true) return;
    const id = lockedBy(world, host.name);
    if (id !== undefined) then(host, id);
    else if (triesLeft > 0) world.scheduler.after(4, () => look(triesLeft - 1));
  };
  look(150);
}

const isPrepared = ({ replica }: StorageHost): boolean => (replica?.quarantines.length ?? 0) > 0;

/** Calls `then` about when some store is prepared for a push, if that comes soon. */
function whenPrepared(world: World, random: SeededRandom, then: () => void): void {
  const look = (triesLeft: number): void => {
    if (world.stores.some(isPrepared)) world.scheduler.after(random.between(0, 60), then);
    else if (triesLeft > 0) world.scheduler.after(4, () => look(triesLeft - 1));
  };
  look(150);
}

/** Of what a disk has of one repository, or of any. */
function flipBit(
  world: World,
  random: SeededRandom,
  { host, id }: { readonly host: StorageHost; readonly id?: string },
): void {
  const flipped = world.flippedBits.flip(host.disk, random, id);
  if (flipped === undefined) return;
  world.count(`bits flipped${id === undefined ? '' : ' in half-applied copies'}`);
  world.say(`a bit of ${host.name} turned over, in ${flipped.path}`);
}

/** Calls `then` in the moment in which a store applies an entry, or has failed at one, if that comes soon. */
function whenHalfApplied(world: World, host: StorageHost, then: (id: string) => void): void {
  const look = (triesLeft: number): void => {
    const id = [...world.observer.configurations.keys()].find((one) =>
      isHalfApplied(host.disk, one),
    );
    if (id !== undefined) then(id);
    else if (triesLeft > 0) world.scheduler.after(2, () => look(triesLeft - 1));
  };
  look(300);
}

/** A repository of which a front-end holds refs. */
function lockedBy({ coordinator }: World, frontEnd: string): string | undefined {
  const range = { rangeEnd: prefixEnd(keys.allLocks) };
  const { entries } = coordinator.state.range(keys.allLocks, range);
  const lock = entries.find(
    ({ key, value: { buffer, byteOffset, byteLength } }) =>
      key.includes('/refs/') &&
      Buffer.from(buffer, byteOffset, byteLength).includes(`"${frontEnd}"`),
  );
  return lock?.key.slice(keys.allLocks.length).split('/')[0];
}

function crashStore(world: World, host: StorageHost, random: SeededRandom): void {
  world.crashStore(host, random.pick(cuts));
  world.restartLater(host, random.between(50, 12_000));
}

function crashFrontEnd(world: World, host: FrontEndHost, random: SeededRandom): void {
  world.crashFrontEnd(host);
  world.restartLater(host, random.between(50, 12_000));
}

function isFault(kind: string): kind is FaultKind {
  return Object.hasOwn(faults, kind);
}

/** Makes trouble now and then, of a few kinds that this seed has chosen, until it is told to stop. */
export class Troublemaker {
  readonly #world: World;
  readonly #random: SeededRandom;
  readonly #kinds: readonly FaultKind[];
  readonly #meanMs: number;
  #stopped = false;

  constructor(world: World, random: SeededRandom, wanted: readonly string[] = []) {
    this.#world = world;
    this.#random = random;
    const known = Object.keys(faults).filter(isFault);
    for (const kind of known) world.expect(`trouble: ${kind}`);
    // That is a kind of world (simulation.ts).
    const all = known.filter((kind) => kind !== 'majority lost');
    const chosen = random.chance(0.1) ? all : random.shuffled(all).slice(0, 1 + random.below(5));
    this.#kinds = wanted.length === 0 ? chosen : wanted.filter(isFault);
    assert.equal(this.#kinds.length, wanted.length || chosen.length, 'there is no such trouble');
    this.#meanMs = random.pick([300, 1_000, 3_000]);
    world.say(`troubles: ${this.#kinds.join(', ')}`);
    this.#next();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Whether it makes this trouble. */
  makes(kind: FaultKind): boolean {
    return this.#kinds.includes(kind);
  }

  /** After this long, or as soon as that leaves a copy of everything. */
  loseMajority(afterMs: number): void {
    this.#world.scheduler.after(afterMs, () => {
      if (this.#stopped || this.#world.losses !== undefined) return;
      faults['majority lost'](this.#world, this.#random);
      if (this.#world.losses === undefined) this.loseMajority(1_000);
      else this.#world.count('trouble: majority lost');
    });
  }

  #next(): void {
    this.#world.scheduler.after(this.#random.between(0, 2 * this.#meanMs), () => {
      if (this.#stopped) return;
      const kind = this.#random.pick(this.#kinds);
      this.#world.say(`trouble: ${kind}`);
      this.#world.count(`trouble: ${kind}`);
      faults[kind](this.#world, this.#random);
      this.#next();
    });
  }
}

/** Everything works again; what is down starts. */
export function healAll(world: World): void {
  const { network, coordinator, stores, frontEnds } = world;
  network.heal();
  network.weather = fairWeather;
  coordinator.watchLagMs = 5;
  coordinator.restoreLeader();
  for (const { process } of [...stores, ...frontEnds]) process?.untrap();
  for (const host of stores) {
    host.disk.full = false;
    host.disk.failing = false;
    endHang(world, host);
    world.startStore(host);
  }
  for (const host of frontEnds) world.startFrontEnd(host);
}
