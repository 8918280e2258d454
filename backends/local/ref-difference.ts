import type { RefCommand, RefEntry } from '../contract/objects.js';
import { isZero } from './judge-names.js';

/** The updates that make `from` into `to`. */
export function differenceOf(
  from: readonly RefEntry[],
  to: readonly RefEntry[],
): readonly RefCommand[] {
  const wanted = new Map(realRefs(to).map(({ name, oid }) => [name, oid]));
  const updates: RefCommand[] = [];
  for (const { name, oid } of realRefs(from)) {
    const newOid = wanted.get(name);
    wanted.delete(name);
    if (newOid === oid) continue;
    updates.push({ ref: name, oldOid: oid, newOid: newOid ?? '0'.repeat(oid.length) });
  }
  for (const [ref, newOid] of wanted) {
    updates.push({ ref, oldOid: '0'.repeat(newOid.length), newOid });
  }
  return updates;
}

/** Whether an update brings an object, rather than taking a ref away. */
export function bringsObject({ newOid }: RefCommand): boolean {
  return !isZero(newOid);
}

/** All but symbolic refs, whose values are those of others. */
export function realRefs(refs: readonly RefEntry[]): readonly RefEntry[] {
  return refs.filter(({ symref }) => symref === undefined);
}
