import type { Coordinator, KeyValue } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import { idOf } from './names.js';
import { decodeRepository, type RepositoryRecord } from './records.js';

/** Names in their order: those that begin with `prefix` and come after `after`, at most `limit` of them. */
export interface NamePage {
  readonly prefix?: string;
  readonly after?: string;
  readonly limit: number;
}

/** Records read in one transaction. */
const atATime = 100;

/**
 * The repositories of a page of names. One that is deleted, or renamed, between the read of its name and that of its
 * record is passed over, and the page is filled with those that follow: who turns pages takes a short one for the last.
 */
export async function listRepositories(
  coordinator: Coordinator,
  { prefix = '', after, limit }: NamePage,
): Promise<readonly RepositoryRecord[]> {
  const first = keys.name(prefix);
  const rangeEnd = prefixEnd(first);
  const next = after === undefined ? first : `${keys.name(after)}\0`;
  let from = next > first ? next : first;
  const found: RepositoryRecord[] = [];
  while (found.length < limit) {
    const wanted = limit - found.length;
    const { entries, more } = await coordinator.range(from, { rangeEnd, limit: wanted });
    for (let at = 0; at < entries.length; at += atATime) {
      found.push(...(await recordsOf(coordinator, entries.slice(at, at + atATime))));
    }
    const last = entries.at(-1);
    if (!more || last === undefined) break;
    from = `${last.key}\0`;
  }
  return found;
}

/** Of those names that are still theirs. */
async function recordsOf(
  coordinator: Coordinator,
  names: readonly KeyValue[],
): Promise<readonly RepositoryRecord[]> {
  const { results } = await coordinator.transaction({
    compares: [],
    success: names.map((name) => ({ type: 'get', key: keys.repo(idOf(name)) })),
    failure: [],
  });
  return results.flatMap((result, index) => {
    const [stored] = result.type === 'get' ? result.entries : [];
    if (stored === undefined) return [];
    const record = decodeRepository(stored);
    const isNamed = record.state === 'active' && keys.name(record.name) === names[index]?.key;
    return isNamed ? [record] : [];
  });
}
