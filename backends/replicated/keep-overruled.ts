import { asQuorateError } from '../contract/errors.js';
import type { Oid, RefCommand } from '../contract/objects.js';
import type { HeldObjects, HeldPush, PrepareRequest, QuarantineKey } from '../contract/replica.js';
import { keepingCommands, type OverruledChange } from './overruled.js';
import type { Loss, Survivor } from './set-loss.js';

export interface Keeping {
  readonly loss: Loss;
  /** Prepared pushes by push id, with the survivors that have their objects. */
  readonly held: ReadonlyMap<string, { readonly push: HeldPush; readonly by: readonly Survivor[] }>;
  readonly changes: readonly OverruledChange[];
  /** Of the quarantine that is to have all of it. */
  readonly key: QuarantineKey;
  readonly lockRevisions: PrepareRequest['lockRevisions'];
  readonly signal: AbortSignal;
}

/**
 * Puts the objects of what is overruled into one quarantine of the first survivor, and has it prepared there: whatever
 * passes is complete, and can be applied. Returns that.
 */
export async function keepObjects(keeping: Keeping): Promise<readonly RefCommand[]> {
  const { loss, held, changes, key, lockRevisions, signal } = keeping;
  const [survivor] = loss.survivors;
  const commands = keepingCommands(changes);
  if (survivor === undefined || commands.length === 0) return [];
  const { replica, state } = survivor;
  const own: Pick<HeldPush, 'pushId' | 'attempt'>[] = [];
  const borrowed: QuarantineKey[] = [];
  for (const { push, updates } of changes) {
    const found = held.get(push.pushId);
    // No ref is made of what nobody knows.
    if (found === undefined || updates === undefined) continue;
    const [first] = found.by;
    if (found.by.includes(survivor)) own.push(found.push);
    else if (first !== undefined) {
      const sent = {
        ...key,
        attempt: key.attempt + 1 + borrowed.length,
        pushId: `${key.pushId}-${borrowed.length}`,
      };
      const { pushId, attempt } = found.push;
      const wanted = { pushId, attempt, tips: tipsOf(updates) };
      if (await send(keeping, { from: first, to: survivor, held: wanted, key: sent })) {
        borrowed.push(sent);
      }
    }
  }
  try {
    await replica.gather(key, [...own, ...borrowed]);
    const { refused } = await replica.prepare({
      key,
      basis: state.generation,
      commands,
      // No limit that is set for pushers may cost what can be kept.
      settings: { 'receive.maxRefs': '0' },
      shallow: [],
      lockRevisions,
      signal,
    });
    const kept = commands.filter(({ ref }) => !refused.has(ref));
    if (kept.length === 0) await replica.abort(key);
    return kept;
  } catch (error) {
    await replica.abort(key).catch(() => undefined);
    throw error;
  } finally {
    for (const sent of borrowed) await replica.abort(sent).catch(() => undefined);
  }
}

/** The objects of a push that another survivor has. False when they are not all there. */
async function send(
  { signal }: Keeping,
  {
    from,
    to,
    held,
    key,
  }: {
    readonly from: Survivor;
    readonly to: Survivor;
    readonly held: HeldObjects;
    readonly key: QuarantineKey;
  },
): Promise<boolean> {
  const { repositoryId } = key;
  const read = await to.replica.read(repositoryId, to.state.generation);
  const have = [...new Set(read.snapshot.refs.map(({ oid }) => oid))];
  read.release();
  const exported = await from.replica.export(repositoryId, {
    atLeast: 0,
    have,
    held,
    signal,
  });
  try {
    if (exported.pack === undefined) return false;
    await to.replica.upload(key, exported.pack, {
      settings: {
        'receive.fsckObjects': 'false',
        'receive.maxInputSize': '0',
        'receive.maxObjectSize': '0',
      },
      signal,
      progress: () => undefined,
    });
    return true;
  } catch (error) {
    if (asQuorateError(error).code !== 'data-corrupt') throw error;
    return false;
  } finally {
    exported.release();
  }
}

/** Each once: a thousand refs may have the same new value. */
function tipsOf(updates: readonly RefCommand[]): readonly Oid[] {
  const brought = updates.filter(({ newOid }) => !/^0+$/.test(newOid));
  return [...new Set(brought.map(({ newOid }) => newOid))];
}
