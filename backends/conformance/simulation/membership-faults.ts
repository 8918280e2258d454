import { asQuorateError } from '../../contract/errors.js';
import type { FrontEnd } from './front-end-host.js';
import type { SeededRandom } from './seeded-random.js';
import type { StorageHost } from './hosts.js';
import type { World } from './world.js';

type Fault = (world: World, random: SeededRandom) => void;

/** What administrators do with nodes and copies. */
export const membershipFaults = {
  'node joins': (world) => {
    const spare = world.stores.find(({ presence }) => presence === 'spare');
    if (spare === undefined) return;
    spare.presence = 'here';
    world.count('nodes joined');
    world.startStore(spare);
  },
  'node drains': (world, random) => {
    const host = random.pick(present(world));
    void decide(world, random, 'nodes drained', async ({ cluster }) => {
      await cluster.mark(host.name, 'draining');
    });
    if (random.chance(0.5)) return;
    world.scheduler.after(random.between(500, 30_000), () => {
      void decide(world, random, 'nodes undrained', async ({ cluster }) => {
        if (world.markOf(host) === 'draining') await cluster.mark(host.name, undefined);
      });
    });
  },
  'node removed': (world, random) => {
    const host = random.pick(present(world));
    if (!canSpare(world, host)) return;
    // Decided or not: what is on its way, or got no answer, may be decided still.
    world.mayBeRemoved.add(host.name);
    void decide(world, random, 'nodes removed', async ({ cluster }) => {
      await cluster.remove(host.name, { force: true });
      stopWhenEmpty(world, host);
    });
  },
  'node lost for good': (world, random) => {
    const host = random.pick(present(world));
    if (!world.mayLoseDisk || !canSpare(world, host)) return;
    world.mayLoseDisk = false;
    world.count('nodes lost for good');
    world.crashStore(host);
    host.presence = 'gone';
    if (random.chance(0.5)) return;
    world.scheduler.after(random.between(0, 30_000), () => {
      void decide(world, random, 'lost nodes removed', async ({ cluster }) => {
        await cluster.remove(host.name, { force: true });
      });
    });
  },
  'repository moves': (world, random) => {
    const id = random.pick([...world.observer.configurations.keys()]);
    const names = random.shuffled(present(world)).map(({ name }) => name);
    const target = random.chance(0.2) ? undefined : names.slice(0, world.replicationFactor);
    void decide(world, random, 'repositories moved', ({ cluster }) => cluster.move(id, target));
  },
} as const satisfies Readonly<Record<string, Fault>>;

/** With fewer nodes than copies nothing can be whole: people take back what they decided about some. */
export async function keepEnoughNodes(world: World): Promise<void> {
  for (const host of present(world)) {
    const fit = present(world).filter((one) => world.markOf(one) === undefined);
    if (fit.length >= world.replicationFactor) return;
    const cluster = world.frontEnds[0]?.frontEnd?.cluster;
    if (world.markOf(host) === undefined || cluster === undefined) continue;
    await world.settled(cluster.mark(host.name, undefined), 60_000, Infinity);
  }
}

function present({ stores }: World): readonly StorageHost[] {
  return stores.filter(({ presence }) => presence === 'here');
}

/** Enough are left for every copy, whatever else was decided. */
function canSpare(world: World, host: StorageHost): boolean {
  const left = present(world).filter(
    (one) => one !== host && world.markOf(one) !== 'removed' && !world.mayBeRemoved.has(one.name),
  );
  return left.length >= world.replicationFactor;
}

/** At a front-end that answers. What was refused, or got no answer, was not decided as far as anybody knows. */
async function decide(
  world: World,
  random: SeededRandom,
  what: string,
  run: (frontEnd: FrontEnd) => Promise<void>,
): Promise<void> {
  const up = world.frontEnds.flatMap(({ frontEnd }) => frontEnd ?? []);
  if (up.length === 0) return;
  try {
    await run(random.pick(up));
    world.count(what);
  } catch (error) {
    const { code, message } = asQuorateError(error);
    world.say(`not decided: ${what}: ${code}: ${message}`);
  }
}

/** As the documentation says: not before it has no copies any more. */
function stopWhenEmpty(world: World, host: StorageHost): void {
  if (world.markOf(host) !== 'removed') return;
  if (copiesOn(world, host) > 0) {
    world.scheduler.after(1_000, () => stopWhenEmpty(world, host));
    return;
  }
  world.say(`${host.name} has nothing any more, and is switched off`);
  world.count('nodes switched off when empty');
  world.crashStore(host);
  host.presence = 'gone';
}

function copiesOn({ observer }: World, { storeId }: StorageHost): number {
  return [...observer.configurations.values()].filter(
    ({ state, voters, learners, readers }) =>
      state !== 'deleted' &&
      storeId !== undefined &&
      [voters, learners, readers].some((copies) => copies.has(storeId)),
  ).length;
}
