import type { CoordinatorBackup } from './coordinator-state.js';
import { healAll, Troublemaker } from './faults.js';
import {
  checkDeleted,
  checkHealed,
  checkLiveness,
  checkPlaced,
  checkRest,
  checkRewound,
  checkSpread,
  isUp,
  leftovers,
  maxSteps,
} from './final-checks.js';
import { checkWhileHung } from './hang-checks.js';
import { checkRecovered } from './recovered-coordinator.js';
import { checkNames } from './name-checks.js';
import { NameClient } from './name-client.js';
import { PastReader } from './past-reader.js';
import { checkPrepares } from './prepare-checks.js';
import { checkPools } from './pool-checks.js';
import { checkRepositories } from './repository-checks.js';
import { LargePusher } from './large-pushes.js';
import { keepEnoughNodes } from './membership-faults.js';
import { runInWorld } from './globals.js';
import { takeOwnership } from '../../coordination/embedded/owner-lock.js';
import { OneMachine } from './one-machine.js';
import { SeededRandom } from './seeded-random.js';
import { oneMachine, worldKinds } from './trouble-kinds.js';
import { Client, type SimulatedRepository } from './workload.js';
import { World } from './world.js';

export interface SeedResult {
  readonly seed: number;
  /** What was promised and did not hold; empty when all is well. */
  readonly violations: readonly string[];
  /** Events that ran. */
  readonly steps: number;
  /** Equal for runs that are equal. */
  readonly trace: string;
  /** Virtual time that passed, in milliseconds. */
  readonly virtualMs: number;
  /** Pushes that were acknowledged, so that a simulation in which nothing works is noticed. */
  readonly acknowledged: number;
  /** How often what happened. */
  readonly happened: Readonly<Record<string, number>>;
}

export interface SimulationOptions {
  readonly log?: ((line: string) => void) | undefined;
  /** In place of those that the seed would choose. */
  readonly troubles?: readonly string[] | undefined;
}

/**
 * After everything was healed: leases of the dead run out (5 s), requests on the way arrive (15 s), and what was put
 * off is tried again. Shorter than the wait for a lock, so that whoever waits for nothing is noticed.
 */
const patienceMs = 60_000;
/** Trouble ends with the clients' work, at the latest after this long. */
const troubledMs = 60_000;

/** One simulated cluster from its start through trouble to the verdict. The same seed does the same, every time. */
export async function simulate(
  seed: number,
  { log, troubles }: SimulationOptions = {},
): Promise<SeedResult> {
  const kind = new SeededRandom(`kind ${seed}`);
  if (troubles?.[0] === oneMachine || (troubles === undefined && kind.chance(0.1))) {
    return simulateOneMachine(seed, log);
  }
  const random = new SeededRandom(`seed ${seed}`);
  const kinds = kindsOf(seed, troubles);
  const world = new World({
    random,
    stores: 3 + random.below(2),
    spares: random.below(3),
    zones: random.pick([1, 2, 3]),
    frontEnds: random.pick([1, 2, 2, 3]),
    replicationFactor: random.pick([1, 2, 3, 3, 3]),
    consistency: random.pick(['eventual', 'quorum', 'quorum', 'quorum', 'strong']),
    forks: kinds.forks,
    large: kinds.large ? new SeededRandom(`large ${seed}`) : undefined,
    contended: new SeededRandom(`contended ${seed}`).chance(0.25),
    log,
  });
  return runInWorld(world.scheduler, async () => {
    try {
      await live(world, random, kinds);
    } catch (error) {
      world.violate(
        `the simulation broke: ${error instanceof Error ? error.stack : String(error)}`,
      );
    }
    return resultOf(world, seed);
  });
}

/** What became of a world, which ends with it. */
export function resultOf(world: World, seed: number): SeedResult {
  const { scheduler, history, violations, happened } = world;
  const { steps, trace, nowMs: virtualMs } = scheduler;
  const acknowledged = history.operations.filter(
    (one) => one.kind === 'push' && one.answer.status === 'reported' && one.answer.ok.size > 0,
  ).length;
  const counts = Object.fromEntries(happened);
  world.end();
  return { seed, violations, steps, trace, virtualMs, acknowledged, happened: counts };
}

async function simulateOneMachine(
  seed: number,
  log: ((line: string) => void) | undefined,
): Promise<SeedResult> {
  const machine = new OneMachine(seed, log);
  // What it imports takes real time, once.
  await takeOwnership('', machine.logger);
  const { scheduler, violations, happened } = machine;
  await runInWorld(scheduler, () => machine.run());
  const { steps, trace, nowMs: virtualMs } = scheduler;
  const { acknowledged } = machine;
  const counts = Object.fromEntries(happened);
  return { seed, violations, steps, trace, virtualMs, acknowledged, happened: counts };
}

/** What some worlds have, besides their troubles. */
interface Kinds {
  /** Others give names that are free again to new repositories. */
  readonly names: boolean;
  readonly forks: boolean;
  /** The majority of some set is lost. */
  readonly loss: boolean;
  /** Somebody reads by a record that was old long ago. */
  readonly past: boolean;
  /** The log takes so little that stores keep the updates of most pushes. */
  readonly large: boolean;
  /** One repository and one or two clients: much in little time. */
  readonly few: boolean;
  readonly troubles: readonly string[];
  readonly random: SeededRandom;
}

/** Drawn apart from everything else. Where troubles are named, these are as well. */
function kindsOf(seed: number, named: readonly string[] | undefined): Kinds {
  const random = new SeededRandom(`world ${seed}`);
  const drawn = [0.1, 0.1, 0.12].map((chance) => named === undefined && random.chance(chance));
  const has = (kind: string, index: number): boolean =>
    named?.includes(kind) ?? drawn[index] === true;
  const troubles = (named ?? []).filter((kind) => !worldKinds.some((other) => other === kind));
  const [names, forks, loss] = worldKinds.map(has);
  const past = new SeededRandom(`past ${seed}`).chance(named === undefined ? 0.1 : 0);
  const large = new SeededRandom(`large pushes ${seed}`).chance(named === undefined ? 0.1 : 0);
  return {
    names: names === true,
    forks: forks === true,
    loss: loss === true,
    past: past || named?.includes('past reads') === true,
    large: large || named?.includes('large pushes') === true,
    few: new SeededRandom(`few ${seed}`).chance(named === undefined ? 0.7 : 0),
    troubles,
    random,
  };
}

async function live(world: World, random: SeededRandom, kinds: Kinds): Promise<void> {
  healAll(world);
  if (!(await world.until(() => isUp(world), 60_000, maxSteps))) {
    world.violate('the cluster did not start');
    return;
  }
  // Until every front-end knows every node.
  await world.until(() => false, 2_000, maxSteps);
  let backup = world.coordinator.state.backup();
  const backupMs = random.pick([Infinity, random.between(0, 3_000), random.between(0, 20_000)]);
  world.scheduler.after(backupMs, () => (backup = world.coordinator.state.backup()));
  const repositories = await createRepositories(world, kinds.few ? 1 : 1 + random.below(3));
  const clients = Array.from(
    { length: 1 + random.below(kinds.few ? 2 : 4) },
    (_, i) => new Client(world, `client-${i + 1}`, random.fork(`client ${i}`), repositories),
  );
  const busy = { count: clients.length };
  for (const client of clients) {
    const operations = 2 + random.below(7);
    // There has to be something to lose.
    void client.run(kinds.loss ? 2 * operations : operations).then(() => busy.count--);
  }
  const trouble = new Troublemaker(world, random.fork('trouble'), kinds.troubles);
  // Pushes that overlap are on their way then, so that a store may have some and lack those before them.
  const lossAfterMs = kinds.random.between(100, 5_000);
  for (const { run, operations } of furtherClients(world, kinds, { repositories, lossAfterMs })) {
    busy.count++;
    void run(operations).then(() => busy.count--);
  }
  if (kinds.loss) trouble.loseMajority(lossAfterMs);
  await world.until(() => busy.count === 0, troubledMs, maxSteps);
  trouble.stop();
  world.largePushes?.calm();
  world.say('everything heals');
  healAll(world);
  // Who stands still does so for a while, and its leases run out meanwhile.
  const hosts = [...world.stores, ...world.frontEnds];
  const stands = (): boolean => hosts.some(({ process }) => process?.paused === true);
  await world.until(() => busy.count === 0 || !stands(), patienceMs, maxSteps);
  // They have twice as much to do there.
  const waitMs = kinds.loss ? 2 * patienceMs : patienceMs;
  if (!(await world.until(() => busy.count === 0, waitMs, maxSteps))) {
    world.violate('clients still wait, long after everything was healed');
    for (const left of leftovers(world)) world.say(`there is ${left}`);
  }
  if (trouble.makes('disk hangs')) {
    await checkWhileHung(world, random.fork('hang'), repositories);
  }
  await conclude(world, random, { repositories, backup });
}

function furtherClients(
  world: World,
  { names, forks, loss, past, large, random }: Kinds,
  {
    repositories,
    lossAfterMs,
  }: { readonly repositories: SimulatedRepository[]; readonly lossAfterMs: number },
): readonly { readonly run: (count: number) => Promise<void>; readonly operations: number }[] {
  const client = (name: string): Client => new Client(world, name, random.fork(name), repositories);
  const users = [1, 2].map((i) => {
    const user = new NameClient(world, client(`named-${i}`), random.fork(`names ${i}`));
    return { run: (count: number) => user.run(count), operations: 4 + random.below(9) };
  });
  const [forker] = [client('forker')];
  const many = random.chance(0.25) ? manyPacks : 1 + random.below(4);
  const run = (count: number): Promise<void> => forker.pushThenFork(count);
  const hasty = [1, 2, 3].map((i) => {
    const one = client(`hasty-${i}`);
    const beginMs = Math.max(0, lossAfterMs - 200);
    return { run: (count: number) => one.pushSoon(beginMs, count), operations: 6 };
  });
  const late = repositories.slice(0, past ? 1 : 0).map((repository) => {
    const own = { random: random.fork('past'), repository };
    const reader = new PastReader(world, client('late'), own);
    return { run: (count: number) => reader.run(count), operations: 60 };
  });
  const wholesale = [1, 2].map((i) => {
    const name = `wholesale-${i}`;
    const one = new LargePusher(world, client(name), random.fork(`${name} choice`));
    return {
      run: (count: number) => one.run(repositories, count),
      operations: 2 + random.below(4),
    };
  });
  return [
    ...late,
    ...(large ? wholesale : []),
    ...(names ? users : []),
    ...(forks ? [{ run, operations: many }] : []),
    ...(loss ? hasty : []),
  ];
}

/** Pushes, so that there are more packs than a pool leaves as they are. */
const manyPacks = 14;

/** Everything is started once more, and the verdict given. */
export async function conclude(
  world: World,
  random: SeededRandom,
  {
    repositories,
    backup,
  }: {
    readonly repositories: SimulatedRepository[];
    /** Of the coordinator, to be restored at the very end. */
    readonly backup: CoordinatorBackup | undefined;
  },
): Promise<void> {
  const strong = new Client(world, 'client-s', random.fork('strong client'), repositories);
  await checkPrepares(world, strong, repositories);
  // What a restart has to find again, and what only a restart clears.
  for (const host of world.stores)
    world.crashStore(host, random.pick(['everything', 'any part', undefined]));
  for (const host of world.frontEnds) world.crashFrontEnd(host);
  // Leases of those that died run out.
  await world.until(() => false, 15_000, maxSteps);
  healAll(world);
  const last = new Client(world, 'client-0', random.fork('last client'), repositories);
  await world.until(() => isUp(world), 60_000, maxSteps);
  if (!(await world.until(() => world.losses?.settled ?? true, 240_000, maxSteps))) {
    world.violate('what is left of a set that has lost its majority cannot be gone on with');
  }
  if (await world.until(() => isUp(world), 60_000, maxSteps)) await keepEnoughNodes(world);
  await adopt(world, repositories);
  const living = repositories.filter(({ id }) => !world.history.deleted.has(id));
  await checkLiveness(world, last, living);
  await checkHealed(world);
  await checkPlaced(world);
  await checkPrepares(world, last, living);
  await checkRest(world);
  await checkPools(world);
  checkRepositories(world);
  checkNames(world.history, world.names, (text) => world.violate(text));
  await checkDeleted(world);
  if (backup !== undefined && (random.chance(0.15) || world.restoredAtEnd)) {
    await checkRewound(world, last, { backup, repositories: living });
    await checkRecovered(world, last, living);
  }
}

/** Those that came about without their maker hearing of it, and those that were made by name. */
async function adopt(world: World, repositories: SimulatedRepository[]): Promise<void> {
  const registry = world.frontEnds[0]?.frontEnd?.backend.repositories;
  if (registry === undefined) return;
  const all = await world.settled(registry.list({ limit: 100 }), 60_000, maxSteps);
  for (const repository of all ?? []) {
    if (repositories.some(({ id }) => id === repository.id)) continue;
    repositories.push({ id: repository.id, repository, mayBeDeleted: true });
  }
}

export async function createRepositories(
  world: World,
  count: number,
): Promise<SimulatedRepository[]> {
  const registry = world.frontEnds[0]?.frontEnd?.backend.repositories;
  if (registry === undefined) throw new Error('there is no front-end');
  const made = await world.settled(
    Promise.all(
      Array.from({ length: count }, (_, i) =>
        registry.create({
          name: `team/app-${i}`,
          defaultBranch: 'main',
          objectFormat: 'sha1',
          settings: world.random.chance(0.25) ? { 'replication.readConsistency': 'eventual' } : {},
          access: { public: false, grants: {} },
        }),
      ),
    ),
    60_000,
    maxSteps,
  );
  if (made === undefined) throw new Error('no repository could be made');
  for (const { id } of made) checkSpread(world, id);
  for (const { id } of made.slice(1)) world.mayBeDeleted.add(id);
  return made.map((repository) => ({
    id: repository.id,
    repository,
    // One stays, for whoever wants to push at the end.
    mayBeDeleted: world.mayBeDeleted.has(repository.id),
  }));
}
