import { QuorateError } from '../contract/errors.js';
import type { Oid, RefCommand } from '../contract/objects.js';
import type { HeldPush, QuarantineKey } from '../contract/replica.js';
import { objectEnvironment } from '../git/object-environment.js';
import { packMissing, type PackRequest } from '../git/object-transfer.js';
import { objectSources } from './judge.js';
import type { OpenRepository } from './open-repository.js';
import {
  keptUpdates,
  linkPacks,
  makeQuarantine,
  type PreparedMark,
  readPreparedMark,
} from './quarantine.js';
import { bringsObject } from './ref-difference.js';
import type { Store } from './store.js';

/** What the store has of pushes that are prepared and not known to be over: for a recovery after others were lost. */
export async function listHeldPushes(
  store: Store,
  quarantines: readonly QuarantineKey[],
  updatesDigests: readonly string[],
): Promise<readonly HeldPush[]> {
  const held: HeldPush[] = [];
  for (const key of quarantines) {
    const mark = await readPreparedMark(store, key);
    if (mark === undefined) continue;
    const { pushId, attempt } = key;
    held.push({ pushId, attempt, ...(await updatesOf(store, key, { mark, updatesDigests })) });
  }
  return held;
}

/** What an entry too large for the log was allowed is less than what was asked for, which the mark has, if it is not much. */
async function updatesOf(
  store: Store,
  key: QuarantineKey,
  {
    mark: { updates },
    updatesDigests = [],
  }: { readonly mark: PreparedMark; readonly updatesDigests?: readonly string[] },
): Promise<Pick<HeldPush, 'updates' | 'updatesDigest' | 'anyOf'>> {
  const kept = await keptUpdates(store.quarantineDirectory(key), updatesDigests);
  if (kept === undefined) return { updates };
  return 'anyOf' in kept ? { updates: undefined, ...kept } : kept;
}

/** A quarantine with what those of other pushes hold. Made anew when it is there: it may be half of one. */
export async function gatherQuarantines(
  store: Store,
  key: QuarantineKey,
  from: readonly QuarantineKey[],
): Promise<void> {
  const packDirectory = await makeQuarantine(store, store.quarantineDirectory(key));
  await linkPacks(
    from.map((other) => store.quarantineDirectory(other)),
    packDirectory,
  );
}

/**
 * One pack of what a prepared push brings and `have` does not reach. `data-corrupt` when it is not all here, `not-found`
 * when nobody knows what it brings.
 */
export async function packHeld({
  store,
  repository,
  ...request
}: Omit<PackRequest, 'tips' | 'gitDir' | 'env'> & {
  /** As whoever asks knows its new values. */
  readonly tips: readonly Oid[] | undefined;
  readonly store: Store;
  readonly repository: OpenRepository;
  readonly key: QuarantineKey;
}): Promise<AsyncIterable<Uint8Array> | undefined> {
  const { key, have } = request;
  const directory = store.quarantineDirectory(key);
  const mark = await readPreparedMark(store, key);
  if (mark === undefined) {
    throw new QuorateError('not-found', 'that push is not prepared in this store');
  }
  const tips = request.tips ?? tipsOf((await updatesOf(store, key, { mark })).updates);
  if (tips === undefined) {
    throw new QuorateError('not-found', 'this store does not know what that push brings');
  }
  const sources = await objectSources(repository, directory);
  return packMissing({
    ...request,
    have,
    tips,
    gitDir: repository.gitDirectory,
    env: objectEnvironment(sources),
  });
}

function tipsOf(updates: readonly RefCommand[] | undefined): readonly Oid[] | undefined {
  return updates?.filter(bringsObject).map(({ newOid }) => newOid);
}
