import { keys } from '../../contract/keys.js';
import type { RecoveryReport } from '../../contract/recovery.js';
import { numberOf, recordOf, textOf } from './commit-observer.js';
import { healAll } from './faults.js';
import { isUp, maxSteps, pairs, takesPushes } from './final-checks.js';
import type { StorageHost } from './hosts.js';
import { type Copy, missingFrom, presentCopy, presentProgress } from './store-inspection.js';
import type { Client, SimulatedRepository } from './workload.js';
import type { World } from './world.js';

/** The copy of a repository that was furthest before the recovery, of all that lie on stores that are there. */
interface Latest {
  readonly repository: SimulatedRepository;
  readonly generation: number;
  readonly copy: Copy;
}

/** How often it is tried, before people give up what does not answer. */
const patientTries = 3;

/**
 * People go on from an older copy of the coordinator, as `quorate recover --apply` does. Whatever a store held that was
 * there is committed after it, on a majority of the voters, with all objects; every process takes pushes again. What
 * could not be raised stays on the disks.
 */
export async function checkRecovered(
  world: World,
  client: Client,
  repositories: readonly SimulatedRepository[],
): Promise<void> {
  healAll(world);
  if (!(await world.until(() => isUp(world), 60_000, maxSteps))) {
    world.violate('not every process starts again with an older copy of the coordinator');
    return;
  }
  const latest = repositories.flatMap((repository) => latestOf(world, repository) ?? []);
  world.say('people recover from the older copy of the coordinator');
  const report = await recover(world);
  if (report === undefined) {
    world.violate('an older copy of the coordinator cannot be gone on from');
    return;
  }
  world.count('recoveries from an older coordinator');
  const stuck = new Set(
    report.found.filter(({ verdict }) => !raisable.has(verdict)).map((one) => one.repositoryId),
  );
  for (const { repositoryId, verdict } of report.found) {
    world.count(`recovered from an older coordinator: ${verdict}`);
    if (verdict !== 'missing' || !latest.some(({ repository: { id } }) => id === repositoryId))
      continue;
    world.violate(`a recovery calls ${repositoryId} missing, and a store that is there has it`);
  }
  for (const one of latest) if (!stuck.has(one.repository.id)) checkHead(world, one);
  for (const host of [...world.stores, ...world.frontEnds]) world.crash(host);
  healAll(world);
  if (!(await world.until(() => isUp(world), 60_000, maxSteps))) {
    world.violate('not every process starts again after a recovery');
    return;
  }
  const living = latest.filter(({ repository: { id } }) => !stuck.has(id) && isActive(world, id));
  const isWhole = (): boolean => living.every((one) => complaintOf(world, one) === undefined);
  await world.until(isWhole, 240_000, maxSteps);
  for (const one of living) {
    const complaint = complaintOf(world, one);
    if (complaint !== undefined) world.violate(`after a recovery ${complaint}`);
  }
  for (const one of latest) checkKept(world, one);
  const recovered = living.map(({ repository }) => repository);
  for (const { repository, host } of pairs(world, recovered)) {
    if (await takesPushes(world, client, { repository, host })) continue;
    world.violate(`after a recovery ${host.name} takes no push to ${repository.id}`);
  }
}

const raisable: ReadonlySet<string> = new Set(['behind', 'moved', 'unfinished']);

/** Undefined when it does not come to its end. */
async function recover(world: World): Promise<RecoveryReport | undefined> {
  const { signal } = new AbortController();
  for (let tries = 0; tries <= 2 * patientTries; tries++) {
    // Until every node says that it lives, and after whatever changed while all was compared.
    await world.until(() => false, 10_000, maxSteps);
    const recovery = world.frontEnds[0]?.frontEnd?.recovery;
    const run = async (apply: boolean): Promise<RecoveryReport | undefined> => {
      try {
        return await recovery?.run({ apply, force: tries > patientTries, signal });
      } catch (error) {
        world.say(`it is not recovered: ${error instanceof Error ? error.message : String(error)}`);
        return undefined;
      }
    };
    const shown = await world.settled(run(false), 240_000, maxSteps);
    const isDue =
      shown?.frozen !== undefined || shown?.found.some(({ verdict }) => raisable.has(verdict));
    if (shown !== undefined && isDue !== true) return shown;
    const applied = await world.settled(run(true), 240_000, maxSteps);
    if (applied?.applied === true) return applied;
  }
  return undefined;
}

function latestOf(world: World, repository: SimulatedRepository): Latest | undefined {
  const copies = present(world).flatMap(({ disk }) => {
    const copy = presentCopy(disk, repository.id);
    return copy.generation === undefined ? [] : [{ copy, generation: copy.generation }];
  });
  const [best] = copies.toSorted((a, b) => b.generation - a.generation);
  return best === undefined ? undefined : { repository, ...best };
}

function present({ stores }: World): readonly StorageHost[] {
  return stores.filter(({ presence, storeId }) => presence === 'here' && storeId !== undefined);
}

function recordAt(world: World, key: string): Readonly<Record<string, unknown>> | undefined {
  const entry = world.coordinator.state.get(key);
  return entry && recordOf(JSON.parse(Buffer.from(entry.value).toString('utf8')));
}

/** By the coordinator, which may not know of it at all. */
function isActive(world: World, id: string): boolean {
  return recordAt(world, keys.repo(id))?.['state'] === 'active';
}

function checkHead(world: World, { repository: { id }, generation }: Latest): void {
  if (!isActive(world, id)) return;
  const head = numberOf(recordAt(world, keys.head(id))?.['generation']);
  if (head >= generation) return;
  world.violate(`a recovery left the head of ${id} at ${head}, and a store holds ${generation}`);
}

/** Why a repository is not whole on a majority of its voters; undefined when it is. */
function complaintOf(
  world: World,
  { repository: { id }, generation, copy }: Latest,
): string | undefined {
  const list = recordAt(world, keys.repo(id))?.['voters'];
  const voters = Array.isArray(list) ? list.map((one) => textOf(recordOf(one)['storeId'])) : [];
  const whole = present(world).filter(({ disk, storeId = '' }) => {
    if (!voters.includes(storeId)) return false;
    const found = presentCopy(disk, id);
    if (found.generation !== generation || !isSame(found, copy)) return false;
    return missingFrom(found.objects, found.refs.values()).length === 0;
  });
  if (2 * whole.length > voters.length) return undefined;
  return `${id} is at generation ${generation}, whole, on ${whole.length} of ${voters.length} voters`;
}

function isSame(one: Copy, other: Copy): boolean {
  const refs = [...one.refs];
  if (one.head !== other.head || refs.length !== other.refs.size) return false;
  return refs.every(([ref, oid]) => other.refs.get(ref) === oid);
}

/** Whatever people decided, and whether it could be raised or not. */
function checkKept(world: World, { repository: { id }, generation }: Latest): void {
  const now = present(world).map(({ disk }) => presentProgress(disk, id).generation ?? -1);
  if (Math.max(...now) >= generation) return;
  world.violate(`after a recovery no store holds generation ${generation} of ${id} any more`);
}
