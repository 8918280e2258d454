import { keys, prefixEnd } from '../../contract/keys.js';
import type { CoordinatorBackup } from './coordinator-state.js';
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
  /** How often what happened. */
  readonly happened: Readonly<Record<string, number>>;
}

export interface SimulationOptions {
  readonly log?: ((line: string) => void) | undefined;
  /** In place of those that the seed would choose. */
  readonly troubles?: readonly string[] | undefined;
}

/** No simulation gets near this, unless something runs in circles. */
const maxSteps = 400_000;
/**
 * After everything was healed: leases of the dead run out (10 s), requests on the way arrive (15 s), and what was put
 * off is tried again. Shorter than the wait for a lock, so that whoever waits for nothing is noticed.
 */
const patienceMs = 60_000;
/** Trouble ends with the clients' work, at the latest after this long. */
const troubledMs = 60_000;
const initialHead = 'refs/heads/main';

/** One simulated cluster from its start through trouble to the verdict. The same seed does the same, every time. */
export async function simulate(
  seed: number,
  { log, troubles }: SimulationOptions = {},
): Promise<SeedResult> {
  const random = new SeededRandom(`seed ${seed}`);
  const world = new World({
    random,
    stores: 3 + random.below(2),
    frontEnds: random.pick([1, 2, 2, 3]),
    replicationFactor: random.pick([1, 2, 3, 3, 3]),
    consistency: random.pick(['eventual', 'quorum', 'quorum', 'quorum', 'strong']),
    log,
  });
  return runInWorld(world.scheduler, async () => {
    try {
      await live(world, random, troubles);
    } catch (error) {
      world.violate(
        `the simulation broke: ${error instanceof Error ? error.stack : String(error)}`,
      );
    }
    const { steps, trace, nowMs } = world.scheduler;
    const acknowledged = world.history.operations.filter(
      (one) => one.kind === 'push' && one.answer.status === 'reported' && one.answer.ok.size > 0,
    ).length;
    const { violations } = world;
    const happened = Object.fromEntries(world.happened);
    return { seed, violations, steps, trace, virtualMs: nowMs, acknowledged, happened };
  });
}

async function live(
  world: World,
  random: SeededRandom,
  troubles: readonly string[] | undefined,
): Promise<void> {
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
  const repositories = await createRepositories(world, 1 + random.below(3));
  const clients = Array.from(
    { length: 1 + random.below(5) },
    (_, i) => new Client(world, `client-${i + 1}`, random.fork(`client ${i}`), repositories),
  );
  const busy = { count: clients.length };
  for (const client of clients) {
    void client.run(3 + random.below(10)).then(() => busy.count--);
  }
  const trouble = new Troublemaker(world, random.fork('trouble'), troubles);
  await world.until(() => busy.count === 0, troubledMs, maxSteps);
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
  const living = repositories.filter(({ id }) => !world.history.deleted.has(id));
  await checkLiveness(world, last, living);
  await checkHealed(world);
  await checkRest(world);
  for (const { id } of repositories) checkRepository(world, id);
  for (const id of world.history.deleted) checkDeleted(world, id);
  if (random.chance(0.2)) await checkRewound(world, last, { backup, repositories: living });
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
  return made.map((repository, index) => ({
    id: repository.id,
    repository,
    // One stays, for whoever wants to push at the end.
    mayBeDeleted: index > 0,
  }));
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
  // Hooks refuse some, and a replica set may have to be repaired first.
  for (let tries = 0; tries < 12; tries++) {
    const push = client.pushOnce(where.repository, where.host);
    const answer = await world.settled(push, 60_000, maxSteps);
    if (answer?.status === 'reported' && answer.ok.size > 0) return true;
    if (tries > 3) await world.until(() => false, 10_000, maxSteps);
  }
  return false;
}

/** Damage is found and mended although nobody asks. */
async function checkHealed(world: World): Promise<void> {
  const left = (): readonly string[] => world.flippedBits.left();
  const living = (): readonly string[] =>
    left().filter((path) => ![...world.history.deleted].some((id) => path.includes(id)));
  if (await world.until(() => living().length === 0, 240_000, maxSteps)) return;
  for (const path of living()) world.violate(`damaged, and not noticed: ${path}`);
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

function leftovers({ coordinator, stores, history }: World): readonly string[] {
  const ranges = [keys.allLogs, keys.outboxes, keys.allLocks];
  const records = ranges.flatMap((prefix) =>
    coordinator.state.range(prefix, { rangeEnd: prefixEnd(prefix) }).entries.map(({ key }) => key),
  );
  const quarantines = stores.flatMap(({ name, disk }) =>
    quarantinesOn(disk).map((one) => `${name}: ${one}`),
  );
  // A deleted repository goes with its last store that comes back, and its tombstone is looked at rarely.
  const deleted = [...history.deleted];
  return [...records, ...quarantines].filter((left) => !deleted.some((id) => left.includes(id)));
}

/** Every voter has the one state that the log made, with all its objects, and clients were told of no other. */
function checkRepository(world: World, repositoryId: string): void {
  const { observer, history, stores } = world;
  const tell = (text: string): void => world.violate(text);
  const last = checkHistory(history, observer, { repositoryId, initialHead }, tell);
  if (last === undefined) return;
  // Its stores give it up one after the other.
  if (history.deleted.has(repositoryId)) return;
  const voters = observer.configurations.get(repositoryId)?.voters ?? new Map();
  for (const { name, disk, storeId } of stores) {
    if (storeId === undefined || !voters.has(storeId)) continue;
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

/**
 * The coordinator comes back from a backup. Whatever it has forgotten is not overwritten, nor taken for deleted: pushes
 * are refused, and reads show what there is or nothing.
 */
async function checkRewound(
  world: World,
  client: Client,
  {
    backup,
    repositories,
  }: { backup: CoordinatorBackup; repositories: readonly SimulatedRepository[] },
): Promise<void> {
  const { coordinator, observer, history, stores, frontEnds } = world;
  const known = new Map(backup.entries.map(({ key, modRevision }) => [key, modRevision]));
  const forgotten = repositories.filter(
    ({ id }) => coordinator.state.get(keys.head(id))?.modRevision !== known.get(keys.head(id)),
  );
  world.say('the coordinator is restored from a backup');
  observer.rewound = true;
  coordinator.restore(backup);
  if (world.random.chance(0.5)) {
    for (const host of [...stores, ...frontEnds]) world.crash(host);
    healAll(world);
    await world.until(() => false, 5_000, maxSteps);
  }
  const before = history.operations.length;
  for (const repository of forgotten) {
    for (const host of frontEnds) {
      await world.settled(client.pushOnce(repository, host), 60_000, maxSteps);
    }
    for (const { replica } of stores) {
      const { id } = repository;
      const opened = replica?.applied(id).catch(() => undefined) ?? Promise.resolve(undefined);
      await world.settled(opened, 60_000, maxSteps);
    }
    checkKept(world, repository.id);
  }
  for (const one of history.operations.slice(before)) {
    const newest = observer.entries.get(one.repositoryId)?.at(-1)?.generation ?? 0;
    if (one.kind === 'read' && one.generation < newest) {
      world.violate(`after a restore a read shows generation ${one.generation} of ${newest}`);
    }
    if (one.kind === 'push' && one.answer.status === 'reported' && one.answer.ok.size > 0) {
      world.violate(`after a restore push ${one.pushId} was acknowledged`);
    }
  }
}

function checkKept(world: World, repositoryId: string): void {
  const { observer, stores } = world;
  const newest = observer.entries.get(repositoryId)?.at(-1)?.generation ?? 0;
  const voters = observer.configurations.get(repositoryId)?.voters ?? new Map<string, string>();
  for (const { name, disk, storeId } of stores) {
    if (storeId === undefined || !voters.has(storeId)) continue;
    const { generation } = presentCopy(disk, repositoryId);
    if (generation === newest) continue;
    world.violate(`after a restore ${name} is at generation ${generation} of ${newest}`);
  }
}

/** Files go with the repository, all of them, and not before its tombstone does. */
function checkDeleted(world: World, id: string): void {
  const { coordinator, stores } = world;
  const record = coordinator.state.get(keys.repo(id));
  for (const { name, disk } of stores) {
    const present = disk.find(`store/repos/${id.slice(0, 2)}/${id}`) !== undefined;
    if (present && record === undefined)
      world.violate(`${name} keeps files of a repository that is gone`);
  }
}
