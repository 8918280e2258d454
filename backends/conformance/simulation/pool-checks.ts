import { keys, prefixEnd } from '../../contract/keys.js';
import { recordOf, textOf } from './commit-observer.js';
import { maxSteps } from './final-checks.js';
import type { World } from './world.js';

/** What was put off is looked at again every ten minutes (`registrySweepEvery`), some of it twice. */
const patienceMs = 1_300_000;

/** A pool is there while somebody shares it, and goes with its files when nobody does. */
export async function checkPools(world: World): Promise<void> {
  if (poolTroubles(world).length === 0) return;
  if (await world.until(() => poolTroubles(world).length === 0, patienceMs, maxSteps)) return;
  for (const text of poolTroubles(world)) world.violate(text);
}

function poolTroubles(world: World): readonly string[] {
  const { coordinator, stores, observer } = world;
  const troubles: string[] = [];
  const shared = new Set<string>();
  const range = { rangeEnd: prefixEnd(keys.pools) };
  for (const { key, value } of coordinator.state.range(keys.pools, range).entries) {
    const poolId = key.slice(keys.pools.length);
    shared.add(poolId);
    const { state, voters } = recordOf(JSON.parse(Buffer.from(value).toString('utf8')));
    // Nothing of it goes before it can go from all of its stores; one that is lost may come back for all they know, also
    // when its node had another disk before it was lost.
    const stored = Array.isArray(voters)
      ? voters.map((one) => textOf(recordOf(one)['nodeId']))
      : [];
    const waits = stores.some(
      (host) =>
        stored.includes(host.name) && host.presence === 'gone' && world.markOf(host) !== 'removed',
    );
    if (waits) continue;
    const prefix = keys.poolMembers(poolId);
    const members = coordinator.state.range(prefix, { rangeEnd: prefixEnd(prefix) }).entries;
    if (state !== 'active') troubles.push(`the pool ${poolId} is ${textOf(state)}`);
    if (members.length < 2) troubles.push(`the pool ${poolId} has ${members.length} members`);
    for (const member of members) {
      const id = member.key.slice(prefix.length);
      if (observer.configurations.get(id)?.pool === poolId) continue;
      troubles.push(`${id} is a member of the pool ${poolId} and does not know it`);
    }
  }
  for (const { name, disk, presence } of stores) {
    if (presence === 'gone') continue;
    for (const poolId of poolsOn(disk)) {
      if (!shared.has(poolId))
        troubles.push(`${name} keeps the pool ${poolId}, which nobody needs`);
    }
  }
  return troubles;
}

function poolsOn(disk: World['stores'][number]['disk']): readonly string[] {
  const root = disk.find('store/pools');
  if (root?.kind !== 'directory') return [];
  return [...root.entries.values()].flatMap((node) =>
    node.kind === 'directory' ? [...node.entries.keys()] : [],
  );
}
