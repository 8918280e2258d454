import type { PushRequest } from '../contract/backend.js';
import { asQuorateError, type ErrorCode } from '../contract/errors.js';
import type { PackAllowance, PushPipeline } from '../contract/pipeline.js';
import type { LogReader, QuarantineKey } from '../contract/replica.js';
import type { Repository } from '../contract/repository.js';
import { numberSetting, type StoredSettings } from '../contract/settings.js';
import { type CommitDependencies, timed } from './commit.js';
import { fanOut } from './fan-out.js';
import type { PushTrace } from './push-trace.js';
import { type Consistency, quorumMissing, suffices } from './quorum.js';
import type { RepositoryRecord } from './records.js';
import { gathered, type Member, nobodyReachable } from './voters.js';

/** Codes that the pusher is told of as the reason of a failed unpack; anything else is an error of the request. */
const packProblems: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'resource-exhausted',
  'storage-failure',
  'data-corrupt',
]);

export interface UploadDependencies extends Pick<
  CommitDependencies,
  'replicas' | 'clock' | 'logger' | 'meter'
> {
  readonly pipeline: Pick<PushPipeline, 'allowance'>;
  readonly log: Pick<LogReader, 'head'>;
  readonly trace: PushTrace;
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

/** Reads what an upload begins with, in one turn of the main loop. Undefined: there is nothing to upload. */
export async function readUploadGround(
  { pipeline, log }: Pick<UploadDependencies, 'pipeline' | 'log'>,
  repository: Repository,
  { pack }: PushRequest,
): Promise<UploadGround | undefined> {
  if (pack === undefined) return undefined;
  const [allowance, { generation: basis }] = await Promise.all([
    pipeline.allowance(repository),
    log.head(repository.id),
  ]);
  return { allowance, basis };
}

export interface Uploaded {
  /** The stores that have the objects, best first; undefined: there was nothing to upload. */
  readonly members: readonly Member[] | undefined;
  readonly packBytes: number;
  /** To be settled when the push is over. */
  readonly allowance: PackAllowance | undefined;
}

export interface NotTaken {
  readonly problem: string;
  /** Text of the `ng` lines. */
  readonly ofEachRef: string;
}

/** Uploads the pack, or says why it was not taken. Trouble that is not the pack's is thrown. */
export async function upload(
  dependencies: UploadDependencies,
  { repository, request, key, consistency, ground }: Upload,
): Promise<Uploaded | NotTaken> {
  const { pack } = request;
  const { voters } = repository;
  const { replicas, clock } = dependencies;
  const counts = (stores: ReadonlySet<string>): boolean => suffices(consistency, voters, stores);
  const members = await gathered(replicas, voters, {
    enough: (found) => counts(storesOf(found)),
    clock,
    signal: request.signal,
  });
  if (pack === undefined || ground === undefined) {
    return { members: undefined, packBytes: 0, allowance: undefined };
  }
  const { allowance, basis } = ground;
  const { settings, isTighter } = withAllowance(repository.settings, allowance);
  if (members.length === 0) throw nobodyReachable(replicas, voters);
  const stores = storesOf(members);
  if (!counts(stores)) {
    dependencies.meter.count('quorum_failures', { consistency });
    throw quorumMissing(consistency, voters, stores);
  }
  const told = request.quiet ? () => undefined : request.progress;
  try {
    const { received, failed } = await timed(dependencies, 'upload', () =>
      fanOut({
        source: pack,
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
        suffices: counts,
        signal: request.signal,
        clock,
      }),
    );
    const context = { component: 'push', repo: repository.id, push_id: key.pushId };
    for (const [store, error] of failed) {
      dependencies.logger.warn({ ...context, store, err: error }, 'a storage node takes no part');
    }
    for (const { nodeId, storeId } of voters) {
      if (received.has(storeId)) dependencies.trace.note('uploaded', { nodeId });
    }
    return {
      members: members.filter(({ storeId }) => received.has(storeId)),
      packBytes: Math.max(...[...received.values()].map(({ sizeBytes }) => sizeBytes)),
      allowance,
    };
  } catch (error) {
    const { code, message, details } = asQuorateError(error);
    await abortUpload(dependencies, key, members);
    if (!packProblems.has(code) || 'basis' in details) throw error;
    dependencies.logger.warn(
      { component: 'push', repo: repository.id, push_id: key.pushId, err: error },
      'a pack was not taken',
    );
    // The objects at a shallow boundary name parents that did not come; git's word for a missing one is no help.
    const hint =
      code === 'invalid-argument' && request.shallow.length > 0
        ? ' (if it is history that is missing: shallow update not allowed, git fetch --unshallow first)'
        : '';
    const isTooMuch = isTighter && details['setting'] === 'receive.maxInputSize';
    if (isTooMuch && allowance !== undefined) {
      const refusal = allowance.refuse();
      return { problem: refusal, ofEachRef: refusal };
    }
    return { problem: `${message}${hint}`, ofEachRef: 'unpacker error' };
  }
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

/** Drops the quarantines of a push that is not committed. Never fails. */
export async function abortUpload(
  { logger }: Pick<UploadDependencies, 'logger'>,
  key: QuarantineKey,
  members: readonly Member[],
): Promise<void> {
  await Promise.all(
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
}
