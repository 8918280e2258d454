import type { PushRequest } from '../contract/backend.js';
import { asQuorateError } from '../contract/errors.js';
import type { PackAllowance } from '../contract/pipeline.js';
import type { QuarantineKey } from '../contract/replica.js';
import { numberSetting, type StoredSettings } from '../contract/settings.js';
import { type CommitDependencies, timed } from './commit.js';
import { fanOut } from './fan-out.js';
import type { PushTrace } from './push-trace.js';
import { type Consistency, quorumMissing, suffices } from './quorum.js';
import type { RepositoryRecord } from './records.js';
import { packProblems, type SmallPack, type SmallPacks } from './small-packs.js';
import { hangingStores } from './stuck.js';
import { gathered, type Member, nobodyReachable } from './voters.js';

export interface UploadDependencies extends Pick<
  CommitDependencies,
  'replicas' | 'clock' | 'logger' | 'meter'
> {
  readonly trace: PushTrace;
  readonly smallPacks: SmallPacks;
}

export interface Upload {
  readonly repository: RepositoryRecord;
  readonly request: PushRequest;
  readonly key: QuarantineKey;
  readonly consistency: Consistency;
  readonly ground: UploadGround | undefined;
}

/** What is known of a repository when an upload begins. */
export interface UploadGround {
  readonly allowance: PackAllowance | undefined;
  /** The head: what the pusher was told is here, and left out of its pack, every store is to have. */
  readonly basis: number;
}

export interface Uploaded {
  /** The stores that have the objects, best first; undefined: there was nothing to upload, or it goes with `prepare`. */
  readonly members?: readonly Member[];
  /** Goes to the stores with the request to prepare. */
  readonly small?: SmallPack;
  /** Of the pack as it is stored, once the stores have it. */
  readonly packBytes: () => number;
  /** To be settled when the push is over. */
  readonly allowance: PackAllowance | undefined;
  /** To be called when the push is over. */
  readonly release: () => void;
}

const nothing: Uploaded = {
  packBytes: () => 0,
  allowance: undefined,
  release: () => undefined,
};

export interface NotTaken {
  readonly problem: string;
  /** Text of the `ng` lines. */
  readonly ofEachRef: string;
}

/**
 * Uploads the pack, unless it is small and here at once: then it goes with `prepare`. Or says why it was not taken;
 * trouble that is not the pack's is thrown.
 */
export async function upload(
  dependencies: UploadDependencies,
  { repository, request, key, consistency, ground }: Upload,
): Promise<Uploaded | NotTaken> {
  const { pack } = request;
  const { voters } = repository;
  const { replicas, clock } = dependencies;
  const members = await gathered(replicas, voters, {
    enough: (found) => suffices(consistency, voters, storesOf(found)),
    clock,
    signal: request.signal,
  });
  if (pack === undefined || ground === undefined) return nothing;
  const { allowance } = ground;
  if (members.length === 0) throw nobodyReachable(replicas, voters);
  if (!suffices(consistency, voters, storesOf(members))) {
    dependencies.meter.count('quorum_failures', { consistency });
    throw quorumMissing(consistency, voters, storesOf(members));
  }
  const incoming = await dependencies.smallPacks.receive(pack);
  if ('whole' in incoming) {
    const { whole: bytes, release } = incoming;
    const takenBy = new Map<string, number>();
    const settings = (stored: StoredSettings): StoredSettings =>
      withAllowance(stored, allowance).settings;
    const packBytes = (): number => Math.max(0, ...takenBy.values());
    const early = {
      key,
      basis: ground.basis,
      pack: bytes,
      settings: settings(repository.settings),
    };
    for (const { replica } of members) replica.startTaking?.(early);
    return { small: { bytes, settings, takenBy }, packBytes, allowance, release };
  }
  try {
    return await streamToAll(dependencies, incoming.stream, {
      repository,
      request,
      key,
      consistency,
      members,
      ground,
    });
  } catch (error) {
    await abortUpload(dependencies, key, members);
    if ('basis' in asQuorateError(error).details) throw error;
    return notTaken(dependencies, error, { repository, request, allowance });
  }
}

async function streamToAll(
  dependencies: UploadDependencies,
  source: AsyncIterable<Uint8Array>,
  push: Upload & { readonly members: readonly Member[]; readonly ground: UploadGround },
): Promise<Uploaded> {
  const { repository, request, key, consistency, members, ground } = push;
  const { voters } = repository;
  const { allowance, basis } = ground;
  const { settings } = withAllowance(repository.settings, allowance);
  const told = request.quiet ? () => undefined : request.progress;
  const { received, failed } = await timed(dependencies, 'upload', () =>
    fanOut({
      source,
      receivers: members.map(({ storeId, replica }, index) => ({
        name: storeId,
        receive: (stream, signal) =>
          replica.upload(key, stream, {
            settings,
            basis,
            signal,
            progress: index === 0 ? told : () => undefined,
          }),
      })),
      suffices: (names) => suffices(consistency, voters, names),
      hangs: (name) => hangingStores(dependencies.replicas).has(name),
      tooFew: (left, errors) => {
        dependencies.meter.count('quorum_failures', { consistency });
        return quorumMissing(consistency, voters, left, errors);
      },
      signal: request.signal,
      clock: dependencies.clock,
    }),
  );
  const context = { component: 'push', repo: repository.id, push_id: key.pushId };
  for (const [store, error] of failed) {
    dependencies.logger.warn({ ...context, store, err: error }, 'a storage node takes no part');
  }
  for (const { nodeId, storeId } of voters) {
    if (received.has(storeId)) dependencies.trace.note('uploaded', { nodeId });
  }
  const packBytes = Math.max(...[...received.values()].map(({ sizeBytes }) => sizeBytes));
  return {
    members: members.filter(({ storeId }) => received.has(storeId)),
    packBytes: () => packBytes,
    allowance,
    release: () => undefined,
  };
}

/** Why a pack was not taken, by what a store said of it. Throws what is not the pack's fault. */
export function notTaken(
  { logger }: Pick<UploadDependencies, 'logger'>,
  error: unknown,
  {
    repository,
    request,
    allowance,
  }: Pick<Upload, 'repository' | 'request'> & Pick<UploadGround, 'allowance'>,
): NotTaken {
  const { code, message, details } = asQuorateError(error);
  if (!packProblems.has(code)) throw error;
  const context = { component: 'push', repo: repository.id, push_id: request.pushId };
  const ownTrouble = code === 'storage-failure' || code === 'data-corrupt';
  // What a pusher did wrong is no trouble of the server, and needs no stack.
  if (ownTrouble) logger.warn({ ...context, err: error }, 'a pack was not taken');
  else logger.info({ ...context, code, problem: message }, 'a pack was not taken');
  // The objects at a shallow boundary name parents that did not come; git's word for a missing one is no help.
  const hint =
    code === 'invalid-argument' && request.shallow.length > 0
      ? ' (if it is history that is missing: shallow update not allowed, git fetch --unshallow first)'
      : '';
  const { isTighter } = withAllowance(repository.settings, allowance);
  const isTooMuch = isTighter && details['setting'] === 'receive.maxInputSize';
  if (isTooMuch && allowance !== undefined) {
    const refusal = allowance.refuse();
    return { problem: refusal, ofEachRef: refusal };
  }
  return { problem: `${message}${hint}`, ofEachRef: 'unpacker error' };
}

function storesOf(members: readonly Member[]): ReadonlySet<string> {
  return new Set(members.map(({ storeId }) => storeId));
}

/** The settings for a pack of which no more is taken than the allowance says. */
function withAllowance(
  settings: StoredSettings,
  allowance: PackAllowance | undefined,
): { readonly settings: StoredSettings; readonly isTighter: boolean } {
  const maxBytes = numberSetting(settings, 'receive.maxInputSize') || Infinity;
  if (allowance === undefined || allowance.maxPackBytes >= maxBytes) {
    return { settings, isTighter: false };
  }
  const tighter = { ...settings, 'receive.maxInputSize': String(allowance.maxPackBytes) };
  return { settings: tighter, isTighter: true };
}

/** So long a pusher waits until nothing is left of what was refused: a store whose disk hangs finds it later. */
const abortPatienceMs = 3_000;

/** Drops the quarantines of a push that is not committed; in the background what takes long. Never fails. */
export async function abortUpload(
  { clock, logger }: Pick<UploadDependencies, 'clock' | 'logger'>,
  key: QuarantineKey,
  members: readonly Member[],
): Promise<void> {
  const dropped = Promise.all(
    members.map(async ({ storeId, replica }) => {
      try {
        await replica.abort(key);
      } catch (error) {
        // The store itself finds what stays behind.
        logger.warn(
          {
            component: 'push',
            repo: key.repositoryId,
            push_id: key.pushId,
            store: storeId,
            err: error,
          },
          'a refused push left its quarantine behind',
        );
      }
    }),
  );
  const over = new AbortController();
  await Promise.race([dropped, clock.sleep(abortPatienceMs, over.signal)]);
  over.abort('over');
}
