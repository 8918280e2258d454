import { isUp, maxSteps } from './final-checks.js';
import { describeAnswer } from './push-answers.js';
import type { Client, SimulatedRepository } from './workload.js';
import type { StorageHost } from './hosts.js';
import type { World } from './world.js';

/** Whoever is away is declared down by then, and what is damaged is found by most. */
const patienceMs = 60_000;
/** Hooks refuse some, clients leave, and sets change while they are pushed to. */
const maxTries = 9;
const soonMs = 3_000;
/** After some tries. A lock that git could not remove from a disk that failed is in the way until it is a minute old. */
const laterMs = 20_000;

/**
 * A store that works prepares pushes, whatever it has been through: one push for each repository at `strong`, which needs
 * every voter that is not declared down. With any other a store that refuses all pushes goes unseen for as long as
 * there are enough others.
 */
export async function checkPrepares(
  world: World,
  client: Client,
  repositories: readonly SimulatedRepository[],
): Promise<void> {
  const { deleted } = world.history;
  for (const repository of repositories) {
    if (!deleted.has(repository.id)) await checkOne(world, client, repository);
  }
}

async function checkOne(
  world: World,
  client: Client,
  repository: SimulatedRepository,
): Promise<void> {
  const { id } = repository;
  let told = '';
  for (let tries = 0; tries < maxTries; tries++) {
    if (!(await world.until(() => isWell(world, id), patienceMs, maxSteps))) {
      world.count('sets that were not well in time for a push at strong');
      return;
    }
    // Who goes on with what is left of sets may have found that nothing is, of this one.
    if (world.history.deleted.has(id)) return;
    world.prepares.forget(id);
    const push = client.pushOnce(repository, world.random.pick(world.frontEnds), strong);
    const answer = await world.settled(push, 60_000, maxSteps);
    // Of what every voter had prepared a hook may have refused all.
    const isPrepared = needed(world, id).every(([storeId]) => world.prepares.has(id, storeId));
    if (answer?.status === 'reported' && (answer.ok.size > 0 || isPrepared)) {
      world.count('pushes at the end that every voter prepared');
      return;
    }
    told = answer === undefined ? 'no answer' : describeAnswer(answer);
    const words = needed(world, id).map(
      ([storeId, host]) => `${host?.name ?? storeId} ${world.prepares.wordOf(id, storeId)}`,
    );
    told += ` (${words.join('; ')})`;
    await world.until(() => false, tries < 4 ? soonMs : laterMs, maxSteps);
  }
  world.violate(`not every voter prepares a push to ${id}, and all are well: ${told}`);
}

const strong = ['consistency=strong'];

/** Voters without which nothing is committed at `strong`. */
function needed(
  { observer, stores }: World,
  id: string,
): readonly (readonly [string, StorageHost | undefined])[] {
  const voters = observer.configurations.get(id)?.voters ?? new Map<string, string>();
  return [...voters]
    .filter(([, state]) => state === '')
    .map(([storeId]) => [storeId, stores.find((one) => one.storeId === storeId)]);
}

/** No voter is away without that being said, or has lost bits, and most are there. */
function isWell(world: World, id: string): boolean {
  const { stores, frontEnds, losses } = world;
  if (!isUp(world) || losses?.settled === false) return false;
  if ([...stores, ...frontEnds].some(({ process }) => process?.paused === true)) return false;
  const must = needed(world, id);
  const voters = world.observer.configurations.get(id)?.voters.size ?? 0;
  // Never fewer than a majority, whatever is declared: of two voters, for which there is no third node, both.
  if (must.length <= voters / 2) return false;
  return must.every(([, host]) => host?.presence === 'here' && !world.isDamaged(host, id));
}
