import type { Replica } from '../../contract/replica.js';
import { asQuorateError } from '../../contract/errors.js';
import type { RefCommand } from '../../contract/objects.js';
import type { ObservedEntry } from './commit-observer.js';
import type { StorageHost } from './hosts.js';
import { zeroOid } from './pack-model.js';
import type { SeededRandom } from './seeded-random.js';
import type { PowerCut } from './simulated-disk.js';
import type { SimulatedProcess } from './simulated-process.js';
import { type Client, names, type SimulatedRepository } from './workload.js';
import type { World } from './world.js';

const cuts: readonly (PowerCut | undefined)[] = ['everything', 'any part', undefined, undefined];
/** JSON of one update takes some 130 bytes: the log takes none, or a single one. */
const limits = [100, 200, 200];
/** What a store says that was started again since it prepared a push. */
const forgot = 'the push is not prepared in this store any more';

/**
 * A world in which the log takes so little that the stores keep the updates of most pushes, as of those of thousands of
 * refs elsewhere. Stores are started again just before they are asked to, and between that and the commit.
 */
export class LargePushes {
  readonly maxInlineUpdatesBytes: number;
  readonly #world: World;
  readonly #random: SeededRandom;
  /** By push and store: in which of its lives it kept the updates. */
  readonly #boots = new Map<string, number>();
  #calm = false;

  constructor(world: World, random: SeededRandom) {
    this.#world = world;
    this.#random = random;
    this.maxInlineUpdatesBytes = random.pick(limits);
  }

  /** No more trouble from here. */
  calm(): void {
    this.#calm = true;
  }

  /** The same replica, whose store may be started again around what it keeps. */
  troubling(
    replica: Replica,
    { caller, host }: { readonly caller: SimulatedProcess; readonly host: StorageHost },
  ): Replica {
    const restarts = (chance: number): boolean => !this.#calm && this.#random.chance(chance);
    return {
      ...replica,
      storeUpdates: async (key, updates) => {
        if (restarts(0.08)) {
          this.#restart(host);
          // As long as a hook may take.
          await caller.clock.sleep(this.#random.between(100, 1_500));
        }
        try {
          const digest = await replica.storeUpdates(key, updates);
          this.#boots.set(`${key.pushId} ${replica.storeId}`, host.boots);
          // There are fewer of those that bring nothing.
          if (restarts(updates.some(bringsObject) ? 0.06 : 0.3)) {
            const longMs = this.#random.between(300, 3_000);
            caller.pause(longMs);
            const atMs = longMs * this.#random.between(0.2, 0.8);
            this.#world.scheduler.after(atMs, () => this.#restart(host));
          }
          return digest;
        } catch (error) {
          const { message } = asQuorateError(error);
          if (message === forgot) this.#world.count('stores that know no more of a large push');
          throw error;
        }
      },
    };
  }

  /** An entry whose updates these stores, of so many voters, are to have kept. */
  committed({ pushId }: ObservedEntry, counted: ReadonlySet<string>, voters: number): void {
    const world = this.#world;
    const push = world.history.operations.find(
      (one) => one.kind === 'push' && one.pushId === pushId,
    );
    const hasPack = push?.kind !== 'push' || push.commands.some(bringsObject);
    const what = `large pushes ${hasPack ? 'with' : 'without'} a pack`;
    world.count(what);
    if (counted.size < voters) world.count('large pushes kept by some of the voters');
    const again = world.stores.some(({ storeId = '', boots }) => {
      const kept = counted.has(storeId) ? this.#boots.get(`${pushId} ${storeId}`) : undefined;
      return kept !== undefined && kept < boots;
    });
    if (again) world.count(`${what} committed after a store that keeps them started again`);
  }

  #restart(host: StorageHost): void {
    if (this.#calm || host.process?.alive !== true) return;
    this.#world.crashStore(host, this.#random.pick(cuts));
    this.#world.restartLater(host, this.#random.between(20, 150));
  }
}

/** Deletes many refs at once, or sets many to what is there already: there is much to say, and nothing to send. */
export class LargePusher {
  readonly #world: World;
  readonly #client: Client;
  readonly #random: SeededRandom;

  constructor(world: World, client: Client, random: SeededRandom) {
    this.#world = world;
    this.#client = client;
    this.#random = random;
  }

  async run(repositories: readonly SimulatedRepository[], pushes: number): Promise<void> {
    for (let i = 0; i < pushes; i++) {
      const up = this.#world.frontEnds.filter(({ frontEnd }) => frontEnd !== undefined);
      if (up.length > 0) {
        const host = this.#random.pick(up);
        const repository = this.#random.pick(repositories);
        await this.#client.read(repository, host);
        const commands = this.#choose(repository);
        if (commands.length > 0) {
          await this.#client.pushThis(repository, host, { commands, objects: [] });
        }
      }
      const pauseMs = this.#random.between(1, 4_000);
      await new Promise<void>((resolve) => void this.#world.scheduler.after(pauseMs, resolve));
    }
  }

  #choose(repository: SimulatedRepository): readonly RefCommand[] {
    const seen = this.#client.seen(repository);
    const count = 1 + this.#random.below(4);
    const heads = [...seen].filter(([ref]) => ref.startsWith('refs/heads/'));
    if (this.#random.chance(0.6)) {
      const deleted = this.#random.shuffled([...seen]).slice(0, count);
      return deleted.map(([ref, oldOid]) => ({ ref, oldOid, newOid: zeroOid }));
    }
    if (heads.length === 0) return [];
    const wanted = names.filter((ref) => ref.startsWith('refs/heads/'));
    return this.#random
      .shuffled(wanted)
      .slice(0, count)
      .map((ref) => {
        const [, newOid] = this.#random.pick(heads);
        return { ref, oldOid: seen.get(ref) ?? zeroOid, newOid };
      });
  }
}

function bringsObject({ newOid }: ObservedEntry['updates'][number]): boolean {
  return newOid !== zeroOid;
}
