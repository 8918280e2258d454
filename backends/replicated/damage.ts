import type { Coordinator, KeyValue, Operation } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { encodeRecord, scan } from './records.js';

/** A verification found damage in a store's copy: it is set aside and filled anew as soon as that is safe. */
export async function reportDamage(
  coordinator: Coordinator,
  repositoryId: string,
  storeId: string,
): Promise<void> {
  await coordinator.transaction({
    // What was deleted meanwhile took its reports with it.
    compares: [{ key: keys.repo(repositoryId), target: 'version', op: '>', operand: 0 }],
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

/** The stores whose copy of one repository is reported. */
export async function readDamagesOf(
  coordinator: Coordinator,
  repositoryId: string,
): Promise<ReadonlySet<string>> {
  const { entries } = await coordinator.range(keys.damage(repositoryId, ''), {
    rangeEnd: prefixEnd(keys.damage(repositoryId, '')),
  });
  return new Set(reportsIn(entries).keys());
}

/** The reports of one repository, to be read together with its configuration. */
export function damagesOf(repositoryId: string): Operation {
  const key = keys.damage(repositoryId, '');
  return { type: 'get', key, rangeEnd: prefixEnd(key) };
}

/** The revision of each report, by store. */
export function reportsIn(entries: readonly KeyValue[]): ReadonlyMap<string, number> {
  return new Map(
    entries.map(({ key, modRevision }) => [key.slice(key.lastIndexOf('/') + 1), modRevision]),
  );
}

/** The copy goes, or the repository with all copies (`storeId` left out), and what was found in it is of no interest. */
export function damageGone(repositoryId: string, storeId = ''): Operation {
  const key = keys.damage(repositoryId, storeId);
  return { type: 'delete', key, ...(storeId === '' ? { rangeEnd: prefixEnd(key) } : {}) };
}

/** The copy was filled anew, or found sound, after this report; one that came meanwhile stays. */
export async function forgetDamage(
  coordinator: Coordinator,
  repositoryId: string,
  { storeId, revision }: { readonly storeId: string; readonly revision: number },
): Promise<void> {
  const key = keys.damage(repositoryId, storeId);
  await coordinator.transaction({
    compares: [{ key, target: 'modRevision', op: '=', operand: revision }],
    success: [{ type: 'delete', key }],
    failure: [],
  });
}
