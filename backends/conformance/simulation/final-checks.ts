import { keys, prefixEnd } from '../../contract/keys.js';
import type { CoordinatorBackup } from './coordinator-state.js';
import { healAll } from './faults.js';
import { presentProgress, quarantinesOn } from './store-inspection.js';
import type { Client, SimulatedRepository } from './workload.js';
import type { FrontEndHost, StorageHost } from './hosts.js';
import type { World } from './world.js';

/** No simulation gets near this, unless something runs in circles. */
export const maxSteps = 400_000;
export function isUp({ stores, frontEnds }: World): boolean {
  return (
    stores.every(({ replica, presence }) => replica !== undefined || presence !== 'here') &&
    frontEnds.every(({ frontEnd }) => frontEnd !== undefined)
  );
}

/** New repositories are on as many nodes as wanted, in as many zones as there are. */
export function checkSpread(world: World, id: string): void {
  const { observer, stores, replicationFactor } = world;
  const { voters } = observer.configurations.get(id) ?? { voters: new Map<string, string>() };
  const on = stores.filter(({ storeId }) => storeId !== undefined && voters.has(storeId));
  const zones = zonesOf(stores.filter(({ presence }) => presence === 'here'));
  if (on.length === replicationFactor && zonesOf(on) === Math.min(zones, replicationFactor)) return;
  world.violate(
    `a new repository was put on ${on.map(({ name, zone }) => `${name} in ${zone}`).join()}`,
  );
}

function zonesOf(hosts: readonly StorageHost[]): number {
  return new Set(hosts.map(({ zone }) => zone)).size;
}

/** Nothing stays on nodes that are to leave or are gone, and what was asked for is done, as far as there are nodes. */
export async function checkPlaced(world: World): Promise<void> {
  if (await world.until(() => misplaced(world).length === 0, 240_000, maxSteps)) return;
  for (const text of misplaced(world)) world.violate(text);
}

function misplaced(world: World): readonly string[] {
  const { observer, stores, replicationFactor, history } = world;
  const fit = stores.filter((host) => host.presence === 'here' && world.markOf(host) === undefined);
  if (fit.length < replicationFactor) return [];
  return [...observer.configurations].flatMap(([id, { state, voters, learners, target }]) => {
    if (state !== 'active' || history.deleted.has(id)) return [];
    const on = [...voters.keys()].map(
      (storeId) => stores.find((one) => one.storeId === storeId)?.name ?? storeId,
    );
    const wanted = target?.every((name) => fit.some((one) => one.name === name))
      ? target
      : undefined;
    const problems = straysOf(world, id);
    const astray = on.filter((name) => !(wanted ?? fit.map((one) => one.name)).includes(name));
    problems.push(...astray.map((name) => `${id} is still on ${name}`));
    if (on.length !== replicationFactor) problems.push(`${id} is on ${on.length} nodes`);
    if (learners.size > 0) problems.push(`${id} has learners that nobody fills`);
    return problems;
  });
}

/** What a store had and is to have no more is gone, or put aside. */
function straysOf({ observer, stores }: World, id: string): string[] {
  const configuration = observer.configurations.get(id);
  if (configuration === undefined) return [];
  const { voters, learners, readers } = configuration;
  return stores
    .filter(({ storeId = '', presence, disk }) => {
      if (presence !== 'here' || voters.has(storeId) || learners.has(storeId)) return false;
      // What was not there in time when it was made does no harm.
      const { generation = 0 } = presentProgress(disk, id);
      return !readers.has(storeId) && generation > (observer.births.get(id)?.generation ?? 0);
    })
    .map(({ name }) => `${name} keeps a copy of ${id} that counts for nothing`);
}

/** Whatever has happened: a cluster that is whole again takes pushes. */
export async function checkLiveness(
  world: World,
  client: Client,
  repositories: readonly SimulatedRepository[],
): Promise<void> {
  if (!(await world.until(() => isUp(world), 60_000, maxSteps))) {
    world.violate('not every process starts again');
    return;
  }
  for (const { repository, host } of pairs(world, repositories)) {
    if (!(await takesPushes(world, client, { repository, host }))) {
      world.violate(`${host.name} takes no push any more`);
    }
  }
}

/** Every repository, and every front-end, in as few pairs as it takes. */
export function pairs(
  { frontEnds }: World,
  repositories: readonly SimulatedRepository[],
): readonly { readonly repository: SimulatedRepository; readonly host: FrontEndHost }[] {
  const count = repositories.length === 0 ? 0 : Math.max(repositories.length, frontEnds.length);
  return Array.from({ length: count }, (_, i) => {
    const repository = repositories[i % repositories.length];
    const host = frontEnds[i % frontEnds.length];
    return repository === undefined || host === undefined ? [] : [{ repository, host }];
  }).flat();
}

export async function takesPushes(
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
export async function checkHealed(world: World): Promise<void> {
  const left = (): readonly string[] =>
    world.stores.flatMap(({ disk, presence }) =>
      presence === 'gone' ? [] : world.flippedBits.showing(disk),
    );
  // What was deleted, or could not be made, goes as a whole.
  const living = (): readonly string[] => {
    const there = [...world.observer.configurations].flatMap(([id, { state }]) =>
      state === 'active' && !world.history.deleted.has(id) ? [id] : [],
    );
    const lent = world.stores.flatMap(({ disk, presence }) =>
      presence === 'gone' ? [] : there.flatMap((id) => world.flippedBits.borrowed(disk, id)),
    );
    return [...left().filter((path) => there.some((id) => path.includes(id))), ...lent];
  };
  if (await world.until(() => living().length === 0, 240_000, maxSteps)) return;
  for (const path of living()) world.violate(`damaged, and not noticed: ${path}`);
}

/** When nothing happens any more nothing is left: no log entries, outbox, locks or quarantines. */
export async function checkRest(world: World): Promise<void> {
  if (await world.until(() => leftovers(world).length === 0, 30_000, maxSteps)) return;
  // A store that started while locks of the dead were still held has kept what they were about; the next start tells.
  for (const host of world.stores) world.crashStore(host);
  healAll(world);
  if (await world.until(() => leftovers(world).length === 0, 240_000, maxSteps)) return;
  for (const left of leftovers(world)) world.violate(`left behind: ${left}`);
}

export function leftovers({ coordinator, stores, history }: World): readonly string[] {
  const ranges = [keys.allLogs, keys.outboxes, keys.allLocks];
  const records = ranges.flatMap((prefix) =>
    coordinator.state.range(prefix, { rangeEnd: prefixEnd(prefix) }).entries.map(({ key }) => key),
  );
  const quarantines = stores.flatMap(({ name, disk, presence }) =>
    (presence === 'gone' ? [] : quarantinesOn(disk)).map((one) => `${name}: ${one}`),
  );
  // A deleted repository goes with its last store that comes back, and its tombstone is looked at rarely.
  const deleted = [...history.deleted];
  return [...records, ...quarantines].filter((left) => !deleted.some((id) => left.includes(id)));
}

/**
 * The coordinator comes back from a backup. Whatever it has forgotten is not overwritten, nor taken for deleted: pushes
 * are refused, and reads show what there is or nothing.
 */
export async function checkRewound(
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
  world.names.rewound = true;
  coordinator.restore(backup);
  if (world.random.chance(0.5)) {
    for (const host of [...stores, ...frontEnds]) world.crash(host);
    healAll(world);
    await world.until(() => false, 5_000, maxSteps);
  }
  const before = history.operations.length;
  for (const { repository, host } of pairs(world, forgotten)) {
    await world.settled(client.pushOnce(repository, host), 60_000, maxSteps);
  }
  for (const repository of forgotten) {
    for (const { replica } of stores) {
      const { id } = repository;
      const opened = replica?.applied(id).catch(() => undefined) ?? Promise.resolve(undefined);
      await world.settled(opened, 60_000, maxSteps);
    }
    checkKept(world, repository.id);
  }
  for (const one of history.operations.slice(before)) {
    const newest = observer.newest(one.repositoryId);
    // At `eventual` a copy may serve that left the set, and was not told to go before all was forgotten.
    if (one.kind === 'read' && one.generation < one.oldest) {
      world.violate(`after a restore a read shows generation ${one.generation} of ${newest}`);
    }
    if (one.kind === 'push' && one.answer.status === 'reported' && one.answer.ok.size > 0) {
      world.violate(`after a restore push ${one.pushId} was acknowledged`);
    }
  }
}

function checkKept(world: World, repositoryId: string): void {
  const { observer, stores } = world;
  const newest = observer.newest(repositoryId);
  const voters = observer.configurations.get(repositoryId)?.voters ?? new Map<string, string>();
  for (const { name, disk, storeId } of stores) {
    if (storeId === undefined || !voters.has(storeId)) continue;
    const { generation } = presentProgress(disk, repositoryId);
    if (generation === newest) continue;
    world.violate(`after a restore ${name} is at generation ${generation} of ${newest}`);
  }
}

/** Files go with the repository, all of them; a store that was left out of it is told by a word of its own. */
export async function checkDeleted(world: World): Promise<void> {
  if (await world.until(() => remains(world).length === 0, 60_000, maxSteps)) return;
  for (const text of remains(world)) world.violate(text);
}

function remains({ coordinator, history, observer, stores }: World): readonly string[] {
  const gone = [...history.deleted].filter(
    (id) => coordinator.state.get(keys.repo(id)) === undefined,
  );
  // A request to make it that comes long after its sender gave up leaves an empty repository (docs, "What is open").
  const late = (id: string, { storeId = '', disk }: StorageHost): boolean =>
    observer.births.get(id)?.configuration.voters.has(storeId) !== true &&
    (presentProgress(disk, id).generation ?? 0) <= 1;
  return stores.flatMap((host) =>
    gone
      .filter((id) => host.disk.find(`store/repos/${id.slice(0, 2)}/${id}`) !== undefined)
      .filter((id) => host.presence !== 'gone' && !late(id, host))
      .map((id) => `${host.name} keeps files of ${id}, which is gone`),
  );
}
