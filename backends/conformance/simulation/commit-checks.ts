import type { KeptUpdates, ObservedConfiguration, ObservedEntry } from './commit-observer.js';
import { zeroOid } from './pack-model.js';
import { durableCopy, durableUpdates, missingFrom } from './store-inspection.js';
import type { World } from './world.js';

/** At the commit point, what was counted must be durable on the voters it was counted for. */
export function checkPrepared(
  world: World,
  entry: ObservedEntry,
  { voters }: ObservedConfiguration,
): void {
  const counted = new Set(
    entry.prepared.filter((storeId) => (voters.get(storeId) ?? 'stale') !== 'stale'),
  );
  const names = [...counted].map((id) => world.stores.find((one) => one.storeId === id)?.name);
  world.say(`${entry.pushId} is committed as ${entry.generation}, on ${names.join()}`);
  world.count(`commits on ${counted.size === voters.size ? 'all' : 'some of the'} voters`);
  const majority = Math.floor(voters.size / 2) + 1;
  const undeclared = [...voters.values()].filter((state) => state === '').length;
  const needed = { eventual: 1, quorum: majority, strong: Math.max(majority, undeclared) };
  if (counted.size < needed[world.consistency]) {
    world.violate(`push ${entry.pushId} was committed with ${counted.size} of ${voters.size}`);
  }
  const tips = entry.updates.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
  const { updatesDigest } = entry;
  const kept = updatesDigest === undefined ? undefined : { ...entry, updatesDigest };
  for (const storeId of counted) {
    const host = world.stores.find((one) => one.storeId === storeId);
    if (host === undefined || world.isDamaged(host, entry.repositoryId)) continue;
    const { objects } = durableCopy(host.disk, entry.repositoryId, entry.pushId);
    const missing: string[] = [...missingFrom(objects, tips)];
    if (kept !== undefined && durableUpdates(host.disk, kept) === undefined)
      missing.push('updates');
    if (missing.length === 0) continue;
    world.violate(`push ${entry.pushId} was committed, and ${host.name} lacks ${missing.join()}`);
  }
  if (kept !== undefined) world.largePushes?.committed(entry, counted, voters.size);
}

/** Updates that are too large for the log, as any store has them for certain. */
export function keptUpdates(
  { stores }: Pick<World, 'stores'>,
  kept: KeptUpdates,
): ObservedEntry['updates'] | undefined {
  for (const { disk } of stores) {
    const updates = durableUpdates(disk, kept);
    if (updates !== undefined) return updates;
  }
  return undefined;
}
