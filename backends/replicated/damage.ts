import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { encodeRecord, scan } from './records.js';

/** A verification found damage in a store's copy: it is set aside and filled anew as soon as that is safe. */
export async function reportDamage(
  coordinator: Coordinator,
  repositoryId: string,
  storeId: string,
): Promise<void> {
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'put', key: keys.damage(repositoryId, storeId), value: encodeRecord({}) }],
    failure: [],
  });
}

/** The keys of all reports. */
export async function readDamages(coordinator: Coordinator): Promise<ReadonlySet<string>> {
  const damages = new Set<string>();
  for await (const { key } of scan(coordinator, keys.damages, { keysOnly: true })) damages.add(key);
  return damages;
}

/** The copy was filled anew. */
export async function forgetDamage(
  coordinator: Coordinator,
  repositoryId: string,
  storeId: string,
): Promise<void> {
  await coordinator.transaction({
    compares: [],
    success: [{ type: 'delete', key: keys.damage(repositoryId, storeId) }],
    failure: [],
  });
}
