import { z } from 'zod';
import type { Coordinator, KeyValue, Operation } from '../contract/coordinator.js';
import type { Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { Replica } from '../contract/replica.js';
import { copiesOf, decodeRepository, encodeRecord, scan } from './records.js';

/** What a store is to do with what it has of something that goes on, or went, without it. */
const wordSchema = z.strictObject({
  /** It is put aside for people to look at: nobody knows whether it holds more than others do. */
  setAside: z.literal(true).exactOptional(),
  /** The id is that of a pool. */
  pool: z.literal(true).exactOptional(),
});
type Word = z.infer<typeof wordSchema>;

/** The positive word by which a store removes what it has; see `wordSchema` for more than that. */
export function evicted(id: string, storeId: string, word: Word = {}): Operation {
  return { type: 'put', key: keys.eviction(storeId, id), value: encodeRecord(word) };
}

/** Undefined for a word of a later version: files go only by one that is understood wholly (`docs/decisions.md`). */
function understood(value: Uint8Array): Word | undefined {
  return wordSchema.safeParse(JSON.parse(new TextDecoder().decode(value))).data;
}

interface Removal {
  /** Asked when nobody uses the copy any more: what it fails with keeps the copy. */
  readonly confirm: () => Promise<void>;
}

interface EvictionDependencies {
  readonly coordinator: Coordinator;
  readonly replica: Pick<Replica, 'storeId' | 'destroyPool'> & {
    destroy(repositoryId: string, options: Removal): Promise<void>;
    /** Takes a copy out of the way, for people to look at, and with `prepared` the objects of pushes of unknown fate. */
    setAside(
      repositoryId: string,
      options: Removal & { readonly prepared: boolean },
    ): Promise<void>;
  };
  readonly logger: Logger;
}

/** Copies that are being removed at a time, many of which wait for their readers. */
const maxUnderWay = 8;

/**
 * Removes the copies that a change of configuration took from this store. The word for it is positive: a record that is
 * absent removes nothing. While the word is there, the store is not given the repository anew.
 */
export async function obeyEvictions(dependencies: EvictionDependencies): Promise<void> {
  const underWay = new Map<string, Promise<void>>();
  await beginEvictions(dependencies, underWay);
  await Promise.all(underWay.values());
}

/**
 * The same, and does not wait for the end: a copy may have readers for hours. `underWay` is told what is being removed,
 * and what is there already is left alone. Waits while that is much.
 */
export async function beginEvictions(
  dependencies: EvictionDependencies,
  underWay: Map<string, Promise<void>>,
): Promise<void> {
  const { coordinator, replica } = dependencies;
  const prefix = keys.evictions(replica.storeId);
  for await (const entry of scan(coordinator, prefix)) {
    const id = entry.key.slice(prefix.length);
    if (underWay.has(id)) continue;
    while (underWay.size >= maxUnderWay) await Promise.race(underWay.values());
    underWay.set(
      id,
      obey(dependencies, entry, id).finally(() => underWay.delete(id)),
    );
  }
}

/** Never rejects. The word is looked at again when the readers are gone: it may have been taken back meanwhile. */
async function obey(
  dependencies: EvictionDependencies,
  entry: KeyValue,
  id: string,
): Promise<void> {
  const { coordinator, replica, logger } = dependencies;
  const { key, value, modRevision } = entry;
  const counts = (): Promise<boolean> => isEvicted(dependencies, entry, id);
  const confirm = async (): Promise<void> => {
    if (!(await counts())) throw new QuorateError('aborted', 'the copy is to stay after all');
  };
  try {
    if (!(await counts())) return;
    const word = understood(value);
    if (word === undefined) {
      const message = `what is to become of the copy is not understood (${key}): upgrade this node`;
      throw new QuorateError('failed-precondition', message);
    }
    if (word.setAside === true) await replica.setAside(id, { prepared: true, confirm });
    else if (word.pool === true) await replica.destroyPool(id);
    else await replica.destroy(id, { confirm });
    await coordinator.transaction({
      // A word that was given meanwhile is obeyed next.
      compares: [{ key, target: 'modRevision', op: '=', operand: modRevision }],
      success: [{ type: 'delete', key }],
      failure: [],
    });
    logger.info({ component: 'store', repo: id }, 'a copy that went elsewhere was removed');
  } catch (error) {
    const about = { component: 'store', repo: id, err: error };
    logger.warn(about, 'a copy is removed later, unless it is to stay by then');
  }
}

/**
 * Asked in a transaction, which an older copy of the coordinator is not trusted with: there the word may be one of long
 * ago, and the copy one that counts. For the same reason nothing that a configuration names is removed. And it has to be
 * the word that was read: another may be to put the copy aside.
 */
async function isEvicted(
  { coordinator, replica: { storeId } }: EvictionDependencies,
  { key, modRevision }: KeyValue,
  id: string,
): Promise<boolean> {
  const { results } = await coordinator.transaction({
    binding: true,
    compares: [],
    success: [
      { type: 'get', key },
      { type: 'get', key: keys.repo(id) },
    ],
    failure: [],
  });
  const [word, stored] = results.map((result) =>
    result.type === 'get' ? result.entries[0] : undefined,
  );
  if (word?.modRevision !== modRevision) return false;
  if (stored === undefined) return true;
  return !copiesOf(decodeRepository(stored)).some((member) => member.storeId === storeId);
}

/**
 * Takes words back that an older copy of the coordinator has: they may be of long ago, and obeyed then, and what a store
 * has of it now have been given to it since. Of those for a copy that `isKept` none is left, and of the others to whom
 * does not answer now only those to put a copy aside: he may hold what nobody else does, and is to be asked for it when
 * he is back. Those of pools stay: before a pool's files go, whoever borrows from it has got them.
 */
export async function takeBackEvictions(
  coordinator: Coordinator,
  {
    isKept,
    answers,
  }: {
    readonly isKept: (storeId: string, id: string) => boolean;
    readonly answers: (storeId: string) => boolean;
  },
): Promise<void> {
  for await (const { key, value, modRevision } of scan(coordinator, keys.allEvictions)) {
    const [storeId = '', id = ''] = key.slice(keys.allEvictions.length).split('/');
    const word = understood(value);
    if (word?.pool === true) continue;
    const stays = word === undefined || word.setAside === true || answers(storeId);
    if (!isKept(storeId, id) && stays) continue;
    await coordinator.transaction({
      compares: [{ key, target: 'modRevision', op: '=', operand: modRevision }],
      success: [{ type: 'delete', key }],
      failure: [],
    });
  }
}
