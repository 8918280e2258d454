import { keys, prefixEnd } from '../../contract/keys.js';
import { endHang, hangSoon } from './disk-hangs.js';
import { isUp, maxSteps } from './final-checks.js';
import type { StorageHost } from './hosts.js';
import type { SeededRandom } from './seeded-random.js';
import { checkPrepares } from './prepare-checks.js';
import { Client, type SimulatedRepository } from './workload.js';
import type { World } from './world.js';

/** Whoever was away is back by then, or declared down. */
const calmMs = 60_000;
/**
 * Of a push, with the read that comes before it. A store that does not keep up is left out after three seconds or as
 * long as the others took; a read waits three seconds for each, and a report three for each, or thirty for all of
 * them; a step of repair keeps a repository locked for ten. Where too few are left, half a minute goes by with each of
 * what is waited for, a stream and then a verdict, once the store has said that its disk hangs.
 */
const servedMs = 60_000;
const answerMs = 2 * servedMs;

/**
 * While the disk of one store hangs, and nothing else is wrong: who has a majority elsewhere is served, and nobody's locks
 * stay.
 */
export async function checkWhileHung(
  world: World,
  random: SeededRandom,
  repositories: SimulatedRepository[],
): Promise<void> {
  if (!(await world.until(() => isCalm(world), calmMs, maxSteps))) return;
  const client = new Client(world, 'client-h', random.fork('client'), repositories);
  // So that nothing else keeps a store from taking part.
  await checkPrepares(world, client, repositories);
  const host = random.pick(world.stores.filter(({ presence }) => presence === 'here'));
  hangSoon(world, random, host, 600_000);
  for (let round = 0; round < 2; round++) {
    for (const repository of repositories) await checkAnswers(world, client, { repository, host });
  }
  const locks = (): readonly string[] =>
    repositories.flatMap(({ id }) => (hasOthers(world, id, host) ? locksOf(world, id) : []));
  if (host.disk.hang !== undefined) {
    const free = (): boolean => locks().length === 0;
    if (!(await world.until(free, answerMs, maxSteps))) {
      world.violate(`the disk of ${host.name} hangs, and so do ${locks().join()}`);
    }
  }
  host.process?.untrap();
  endHang(world, host, random);
  await world.until(() => isUp(world), calmMs, maxSteps);
}

async function checkAnswers(
  world: World,
  client: Client,
  { repository, host }: { repository: SimulatedRepository; host: StorageHost },
): Promise<void> {
  const { id } = repository;
  const isServed = hasOthers(world, id, host);
  if (!isServed && !isRead(world, id, host)) return;
  const asked = world.random.pick(world.frontEnds);
  // By a record that is long out of date it might be read from nobody else.
  const records = asked.frontEnd?.backend.repositories.list({ limit: 100 });
  const listed = await world.settled(Promise.resolve(records), answerMs, maxSteps);
  repository.repository = listed?.find((one) => one.id === id) ?? repository.repository;
  const startMs = world.scheduler.nowMs;
  const waitMs = isServed ? servedMs : answerMs;
  const answer = await world.settled(client.pushOnce(repository, asked), waitMs, maxSteps);
  if (host.disk.hang === undefined) return;
  const tookMs = world.scheduler.nowMs - startMs;
  world.count('pushes while a disk hangs');
  world.say(`${asked.name} answers after ${tookMs.toFixed(0)} ms, while a disk hangs`);
  if (!isServed) world.count('pushes that a hanging disk keeps from their quorum');
  const isOwed = isServed ? hasOthers(world, id, host) : isRead(world, id, host);
  if (answer === undefined && isOwed) {
    world.violate(`${asked.name} answers no push to ${id} while the disk of ${host.name} hangs`);
  }
}

function isCalm(world: World): boolean {
  const { stores, frontEnds, losses } = world;
  if (!isUp(world) || losses?.settled === false) return false;
  return [...stores, ...frontEnds].every(({ process }) => process?.paused !== true);
}

/** It takes pushes without that store: a majority of its voters is elsewhere, and nothing is known to be wrong with it. */
function hasOthers(world: World, id: string, hung: StorageHost): boolean {
  const { sound, all } = votersBeside(world, id, hung);
  return world.consistency !== 'strong' && sound > all / 2;
}

/** It can be read elsewhere, so that it can be said of a push that it is not taken. */
function isRead(world: World, id: string, hung: StorageHost): boolean {
  return votersBeside(world, id, hung).sound > 0;
}

function votersBeside(
  world: World,
  id: string,
  hung: StorageHost,
): { readonly sound: number; readonly all: number } {
  const { observer, stores, history } = world;
  const voters = observer.configurations.get(id)?.voters ?? new Map<string, string>();
  if (history.deleted.has(id)) return { sound: 0, all: voters.size };
  const sound = [...voters].filter(([storeId, state]) => {
    const host = stores.find((one) => one.storeId === storeId);
    if (host === undefined || host === hung || state !== '') return false;
    return host.presence === 'here' && host.replica !== undefined && !world.isDamaged(host, id);
  });
  return { sound: sound.length, all: voters.size };
}

function locksOf({ coordinator }: World, id: string): readonly string[] {
  const prefix = `${keys.allLocks}${id}/`;
  const { entries } = coordinator.state.range(prefix, { rangeEnd: prefixEnd(prefix) });
  return entries.map(({ key }) => key);
}
