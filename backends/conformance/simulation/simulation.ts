import { keys, prefixEnd } from '../../contract/keys.js';
import { checkHistory, differences } from './checker.js';
import { healAll, Troublemaker } from './faults.js';
import { runInWorld } from './globals.js';
import { SeededRandom } from './seeded-random.js';
import { missingFrom, presentCopy, quarantinesOn } from './store-inspection.js';
import { Client, type SimulatedRepository } from './workload.js';
import { type FrontEndHost, World } from './world.js';

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
}

/** No simulation gets near this, unless something runs in circles. */
const maxSteps = 400_000;
/**
 * After everything was healed: leases of the dead run out (10 s), requests on the way arrive (15 s), and what was put
 * off is tried again. Shorter than the wait for a lock, so that whoever waits for nothing is noticed.
 */
const patienceMs = 50_000;
const initialHead = 'refs/heads/main';

/** One simulated cluster from its start through trouble to the verdict. The same seed does the same, every time. */
export async function simulate(seed: number, log?: (line: string) => void): Promise<SeedResult> {
  const random = new SeededRandom(`seed ${seed}`);
  const world = new World({
    random,
    stores: 3,
    frontEnds: 1 + random.below(3),
    replicationFactor: random.pick([1, 2, 3, 3, 3]),
    consistency: random.pick(['eventual', 'quorum', 'quorum', 'quorum', 'strong']),
    log,
  });
  return runInWorld(world.scheduler, async () => {
    try {
      await live(world, random);
    } catch (error) {
      world.violate(
        `the simulation broke: ${error instanceof Error ? error.stack : String(error)}`,
      );
    }
    const { steps, trace, nowMs } = world.scheduler;
    const acknowledged = world.history.operations.filter(
      (one) => one.kind === 'push' && one.answer.status === 'reported' && one.answer.ok.size > 0,
    ).length;
    return { seed, violations: world.violations, steps, trace, virtualMs: nowMs, acknowledged };
  });
}

async function live(world: World, random: SeededRandom): Promise<void> {
  healAll(world);
  if (!(await world.until(() => isUp(world), 60_000, maxSteps))) {
    world.violate('the cluster did not start');
    return;
  }
  const repositories = await createRepositories(world, 1 + random.below(2));
  const clients = Array.from(
    { length: 1 + random.below(5) },
    (_, i) => new Client(world, `client-${i + 1}`, random.fork(`client ${i}`), repositories),
  );
  const busy = { count: clients.length };
  for (const client of clients) {
    void client.run(3 + random.below(10)).then(() => busy.count--);
  }
  const trouble = new Troublemaker(world, random.fork('trouble'));
  await world.until(() => busy.count === 0, 120_000, maxSteps);
  trouble.stop();
  world.say('everything heals');
  healAll(world);
  if (!(await world.until(() => busy.count === 0, patienceMs, maxSteps))) {
    world.violate('clients still wait, long after everything was healed');
    for (const left of leftovers(world)) world.say(`there is ${left}`);
  }
  // What a restart has to find again, and what only a restart clears.
  for (const host of world.stores)
    world.crashStore(host, random.pick(['everything', 'any part', undefined]));
  for (const host of world.frontEnds) world.crashFrontEnd(host);
  // Leases of those that died run out.
  await world.until(() => false, 15_000, maxSteps);
  healAll(world);
  const last = new Client(world, 'client-0', random.fork('last client'), repositories);
  await checkLiveness(world, last, repositories);
  await checkRest(world);
  for (const { id } of repositories) checkRepository(world, id);
}

function isUp({ stores, frontEnds }: World): boolean {
  return (
    stores.every(({ replica }) => replica !== undefined) &&
    frontEnds.every(({ frontEnd }) => frontEnd !== undefined)
  );
}

async function createRepositories(world: World, count: number): Promise<SimulatedRepository[]> {
  const registry = world.frontEnds[0]?.frontEnd?.backend.repositories;
  if (registry === undefined) throw new Error('there is no front-end');
  const made = await world.settled(
    Promise.all(
      Array.from({ length: count }, (_, i) =>
        registry.create({
          name: `team/app-${i}`,
          defaultBranch: 'main',
          objectFormat: 'sha1',
          settings: {},
          access: { public: false, grants: {} },
        }),
      ),
    ),
    60_000,
    maxSteps,
  );
  if (made === undefined) throw new Error('no repository could be made');
  return made.map((repository) => ({ id: repository.id, repository }));
}

/** Whatever has happened: a cluster that is whole again takes pushes. */
async function checkLiveness(
  world: World,
  client: Client,
  repositories: readonly SimulatedRepository[],
): Promise<void> {
  if (!(await world.until(() => isUp(world), 60_000, maxSteps))) {
    world.violate('not every process starts again');
    return;
  }
  for (const repository of repositories) {
    for (const host of world.frontEnds) {
      if (!(await takesPushes(world, client, { repository, host }))) {
        world.violate(`${host.name} takes no push any more`);
      }
    }
  }
}

async function takesPushes(
  world: World,
  client: Client,
  where: { readonly repository: SimulatedRepository; readonly host: FrontEndHost },
): Promise<boolean> {
  // Hooks refuse some, and what the first one finds may be old.
  for (let tries = 0; tries < 5; tries++) {
    const push = client.pushOnce(where.repository, where.host);
    const answer = await world.settled(push, 60_000, maxSteps);
    if (answer?.status === 'reported' && answer.ok.size > 0) return true;
  }
  return false;
}

/** When nothing happens any more nothing is left: no log entries, outbox, locks or quarantines. */
async function checkRest(world: World): Promise<void> {
  if (await world.until(() => leftovers(world).length === 0, 30_000, maxSteps)) return;
  // A store that started while locks of the dead were still held has kept what they were about; the next start tells.
  for (const host of world.stores) world.crashStore(host);
  healAll(world);
  if (await world.until(() => leftovers(world).length === 0, 240_000, maxSteps)) return;
  for (const left of leftovers(world)) world.violate(`left behind: ${left}`);
}

function leftovers({ coordinator, stores }: World): readonly string[] {
  const ranges = [keys.allLogs, keys.outboxes, keys.allLocks];
  const records = ranges.flatMap((prefix) =>
    coordinator.state.range(prefix, { rangeEnd: prefixEnd(prefix) }).entries.map(({ key }) => key),
  );
  return [
    ...records,
    ...stores.flatMap(({ name, disk }) => quarantinesOn(disk).map((one) => `${name}: ${one}`)),
  ];
}

/** Every voter has the one state that the log made, with all its objects, and clients were told of no other. */
function checkRepository(world: World, repositoryId: string): void {
  const { observer, history, stores } = world;
  const tell = (text: string): void => world.violate(text);
  const last = checkHistory(history, observer, { repositoryId, initialHead }, tell);
  if (last === undefined) return;
  const voters = observer.configurations.get(repositoryId)?.voters ?? [];
  for (const { name, disk, storeId } of stores) {
    if (storeId === undefined || !voters.includes(storeId)) continue;
    const copy = presentCopy(disk, repositoryId);
    if (copy.generation !== last.generation) {
      tell(`${name} ended at generation ${copy.generation}, not ${last.generation}`);
    }
    for (const difference of differences(last.refs, copy.refs)) tell(`${name}: ${difference}`);
    if (copy.head !== `ref: ${last.head}`) tell(`${name} has HEAD ${copy.head}, not ${last.head}`);
    const missing = missingFrom(copy.objects, copy.refs.values());
    if (missing.length > 0) tell(`${name} lacks the objects ${missing.join()}`);
  }
}
