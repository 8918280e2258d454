import { conclude, createRepositories, resultOf, type SeedResult } from './simulation.js';
import { healAll } from './faults.js';
import { isUp, maxSteps } from './final-checks.js';
import { runInWorld } from './globals.js';
import { SeededRandom } from './seeded-random.js';
import type { CrashPoint } from './simulated-process.js';
import { Client } from './workload.js';
import type { FrontEndHost, StorageHost } from './hosts.js';
import { World } from './world.js';

/** One place in which a process may be made to die: a fsync, rename, change of the disk or message of the scenario. */
interface Point {
  /** Of its host among stores and front-ends. */
  readonly host: number;
  /** A store that lost its disk has a second one. */
  readonly life: 1 | 2;
  readonly at: number;
  readonly side: 'before' | 'after';
}

type AnyHost = StorageHost | FrontEndHost;

/** The steps of a host in the run without a crash: first and second life. */
interface Steps {
  readonly host: number;
  readonly lives: readonly [readonly CrashPoint[], readonly CrashPoint[]];
}

const restartMs = 300;
/** Which store loses its disk half-way, and is filled again. */
const lost = 2;

let known: readonly Point[] | undefined;

/**
 * One standard scenario - pushes of several clients, maintenance, a lost disk and its repair - in which one process dies
 * at one step: run number `index` has the `index`th of all crash points; number 0 has none, and tells how many there are.
 */
export async function simulateCrash(
  index: number,
  log: ((line: string) => void) | undefined,
): Promise<SeedResult> {
  known ??= pointsOf((await runScenario(undefined, undefined)).steps);
  const point = index === 0 ? undefined : known[index - 1];
  if (index > 0 && point === undefined) throw new Error(`there is no crash point ${index}`);
  const { world } = await runScenario(point, log);
  if (index === 0) world.happened.set('crash points', known.length);
  return resultOf(world, index);
}

function pointsOf(all: readonly Steps[]): readonly Point[] {
  return all.flatMap(({ host, lives }) =>
    lives.flatMap((steps, life) =>
      steps.flatMap((kind, i) =>
        // A message is sent or it is not: the point after it is one of its own.
        (kind === 'message' ? (['before'] as const) : (['before', 'after'] as const)).map(
          (side): Point => ({ host, life: life === 0 ? 1 : 2, at: i + 1, side }),
        ),
      ),
    ),
  );
}

async function runScenario(
  point: Point | undefined,
  log: ((line: string) => void) | undefined,
): Promise<{ readonly world: World; readonly steps: readonly Steps[] }> {
  const random = new SeededRandom('crash sweep');
  const world = new World({
    random,
    stores: 3,
    spares: 0,
    zones: 1,
    frontEnds: 2,
    replicationFactor: 3,
    consistency: 'quorum',
    contended: false,
    log,
  });
  const steps = await runInWorld(world.scheduler, async () => {
    try {
      return await live(world, random, point);
    } catch (error) {
      const text = error instanceof Error ? error.stack : String(error);
      world.violate(`the simulation broke: ${text}`);
      return [];
    }
  });
  return { world, steps };
}

async function live(
  world: World,
  random: SeededRandom,
  point: Point | undefined,
): Promise<readonly Steps[]> {
  healAll(world);
  await world.until(() => isUp(world), 60_000, maxSteps);
  await world.until(() => false, 2_000, maxSteps);
  const repositories = await createRepositories(world, 1);
  const hosts: readonly AnyHost[] = [...world.stores, ...world.frontEnds];
  const firstLives = hosts.map(({ process }) => process);
  const before = firstLives.map((process) => process?.passed.length ?? 0);
  arm(world, hosts, point, 1);
  const clients = [1, 2, 3].map(
    (i) => new Client(world, `client-${i}`, random.fork(`client ${i}`), repositories),
  );
  const [one, two, three] = clients.map((client) => () => client.run(4));
  await world.settled(Promise.all([one?.(), two?.()]), 60_000, maxSteps);
  for (const { replica } of world.stores) {
    for (const { id } of repositories) {
      void replica?.maintain(id, { signal: new AbortController().signal }).catch(() => undefined);
    }
  }
  await world.until(() => false, 1_000, maxSteps);
  const host = world.stores[lost];
  if (host === undefined) return [];
  world.wipe(host);
  await world.until(() => false, 200, maxSteps);
  world.startStore(host);
  arm(world, hosts, point, 2);
  await world.settled(Promise.resolve(three?.()), 60_000, maxSteps);
  const votes = (): boolean =>
    repositories.every(
      ({ id }) => world.observer.configurations.get(id)?.voters.has(host.storeId ?? '') === true,
    );
  await world.until(votes, 60_000, maxSteps);
  await world.until(() => false, 3_000, maxSteps);
  const steps = hosts.map((each, i): Steps => {
    const first = firstLives[i]?.passed.slice(before[i]) ?? [];
    return { host: i, lives: [first, each === host ? [...(host.process?.passed ?? [])] : []] };
  });
  await conclude(world, random, { repositories, backup: undefined });
  return steps;
}

/** Sets the trap when the point is in this life of its host. */
function arm(
  world: World,
  hosts: readonly AnyHost[],
  point: Point | undefined,
  life: Point['life'],
): void {
  const host = point === undefined ? undefined : hosts[point.host];
  if (point === undefined || host?.process === undefined || point.life !== life) return;
  host.process.side = point.side;
  host.process.trap('any', point.at, () => {
    world.count('crashes');
    if (host.kind === 'store') world.crashStore(host, 'everything');
    else world.crashFrontEnd(host);
    world.restartLater(host, restartMs);
  });
}
