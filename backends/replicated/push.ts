import type { PushRequest, PushResult } from '../contract/backend.js';
import { asQuorateError, type ErrorCode } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { PushContext, PushPipeline } from '../contract/pipeline.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { RefOutcome } from '../contract/repository.js';
import { type StoredSettings, wordSetting } from '../contract/settings.js';
import { commitChange, type CommitDependencies, type Judged, timed } from './commit.js';
import { fanOut } from './fan-out.js';
import type { Attendance } from './outbox.js';
import { type Consistency, isConsistency, quorumMissing, suffices } from './quorum.js';
import type { RepositoryRecord } from './records.js';
import { type Member, nobodyReachable, reachable } from './voters.js';

export interface PushDependencies extends CommitDependencies {
  readonly pipeline: PushPipeline;
  /** Listens to the post-receive stage of a push, from before its commit on. */
  readonly attend: (pushId: string, progress: (text: Uint8Array) => void) => Attendance;
  /** Of pushes that say nothing else, to repositories that say nothing else. */
  readonly consistency: Consistency;
}

/** How long a pusher waits for the words of a post-receive hook. What comes later is in the log. */
const attendMs = 2_000;

/** What git says of the other refs when one ref of an atomic push is refused. */
const atomicFailure = 'atomic push failure';

/** The push path: upload without locks, then lock, prepare, judge, commit, apply (docs/architecture.md, "A push"). */
export async function runPush(
  dependencies: PushDependencies,
  repository: RepositoryRecord,
  request: PushRequest,
): Promise<PushResult> {
  const refusals = new Map(request.refused);
  const candidates = (): RefCommand[] =>
    request.atomic && refusals.size > 0
      ? []
      : request.commands.filter(({ ref }) => !refusals.has(ref));
  if (candidates().length === 0) return report(request, refusals);

  const key: QuarantineKey = { repositoryId: repository.id, pushId: request.pushId, attempt: 1 };
  const asked = askedConsistency(request.pushOptions);
  if (asked === 'unknown') {
    for (const { ref } of request.commands) refusals.set(ref, unknownConsistency);
    return report(request, refusals);
  }
  const consistency = ({ settings }: RepositoryRecord): Consistency =>
    asked ?? configuredConsistency(settings) ?? dependencies.consistency;
  const uploaded = await upload(dependencies, {
    repository,
    request,
    key,
    consistency: consistency(repository),
  });
  if ('problem' in uploaded) return unpackFailed(request, refusals, uploaded.problem);
  const { members } = uploaded;

  let leaveQuarantine = false;
  let talks = false;
  const attendance = dependencies.attend(request.pushId, request.progress);
  try {
    const committed = await commitChange(dependencies, {
      key,
      actor: request.actor,
      ...(members === undefined ? {} : { members }),
      consistency,
      commands: candidates(),
      pushOptions: request.pushOptions,
      shallow: request.shallow,
      signal: request.signal,
      judge: async (judged) => {
        // Every round judges afresh: what an earlier round refused may be fine at the new basis.
        refusals.clear();
        for (const [ref, reason] of request.refused) refusals.set(ref, reason);
        for (const [ref, reason] of judged.prepared.refused) refusals.set(ref, reason);
        await runStages(dependencies, { judged, request, key, refusals, candidates });
        // It is about words for the pusher only, and no reason to fail.
        talks = await dependencies.pipeline.talksAfterCommit(repository.id).catch(() => false);
        return candidates();
      },
    });
    leaveQuarantine = 'generation' in committed;
    if (talks && leaveQuarantine) await attendance.over(attendMs);
    return report(request, refusals, committed);
  } catch (error) {
    leaveQuarantine = asQuorateError(error).code === 'outcome-unknown';
    throw error;
  } finally {
    attendance.leave();
    if (!leaveQuarantine) {
      await abort(
        dependencies,
        key,
        members ?? reachable(dependencies.replicas, repository.voters),
      );
    }
  }
}

/** Codes that the pusher is told of as the reason of a failed unpack; anything else is an error of the request. */
const packProblems: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'resource-exhausted',
  'storage-failure',
  'data-corrupt',
]);

/** The push option that asks for another consistency than the configured one: `-o consistency=strong`. */
const consistencyOption = 'consistency=';

const unknownConsistency = 'the push option consistency wants eventual, quorum or strong';

function askedConsistency(pushOptions: readonly string[]): Consistency | 'unknown' | undefined {
  const option = pushOptions.findLast((one) => one.startsWith(consistencyOption));
  if (option === undefined) return undefined;
  const word = option.slice(consistencyOption.length);
  return isConsistency(word) ? word : 'unknown';
}

function configuredConsistency(settings: StoredSettings): Consistency | undefined {
  const word = wordSetting(settings, 'replication.consistency');
  return isConsistency(word) ? word : undefined;
}

interface Upload {
  readonly repository: RepositoryRecord;
  readonly request: PushRequest;
  readonly key: QuarantineKey;
  readonly consistency: Consistency;
}

/**
 * The stores that have the objects, best first, or why the pack was not taken. Undefined members: nothing to upload.
 * Trouble that is not the pack's is thrown.
 */
async function upload(
  dependencies: PushDependencies,
  { repository, request, key, consistency }: Upload,
): Promise<{ readonly members: readonly Member[] | undefined } | { readonly problem: string }> {
  const { pack } = request;
  if (pack === undefined) return { members: undefined };
  const { voters, settings } = repository;
  const members = reachable(dependencies.replicas, voters);
  if (members.length === 0) throw nobodyReachable(voters);
  const counts = (stores: ReadonlySet<string>): boolean => suffices(consistency, voters, stores);
  const stores = new Set(members.map(({ storeId }) => storeId));
  if (!counts(stores)) throw quorumMissing(consistency, voters, stores);
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
              signal,
              progress: index === 0 ? told : () => undefined,
            }),
        })),
        suffices: counts,
        isFatal: ({ code }) => packFaults.has(code),
        signal: request.signal,
        clock: dependencies.clock,
      }),
    );
    const context = { component: 'push', repo: repository.id, push_id: key.pushId };
    for (const [store, error] of failed) {
      dependencies.logger.warn({ ...context, store, err: error }, 'a storage node takes no part');
    }
    return { members: members.filter(({ storeId }) => received.has(storeId)) };
  } catch (error) {
    const { code, message } = asQuorateError(error);
    await abort(dependencies, key, members);
    if (!packProblems.has(code)) throw error;
    dependencies.logger.warn(
      { component: 'push', repo: repository.id, push_id: key.pushId, err: error },
      'a pack was not taken',
    );
    // The objects at a shallow boundary name parents that did not come; git's word for a missing one is no help.
    const hint =
      code === 'invalid-argument' && request.shallow.length > 0
        ? ' (if it is history that is missing: shallow update not allowed, git fetch --unshallow first)'
        : '';
    return { problem: `${message}${hint}` };
  }
}

/** The pack's own fault: every store would say the same. */
const packFaults: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'resource-exhausted',
]);

async function runStages(
  dependencies: PushDependencies,
  {
    judged,
    request,
    key,
    refusals,
    candidates,
  }: {
    judged: Judged;
    request: PushRequest;
    key: QuarantineKey;
    refusals: Map<string, string>;
    candidates: () => RefCommand[];
  },
): Promise<void> {
  const commands = candidates();
  if (commands.length === 0) return;
  const context: PushContext = {
    repository: judged.repository,
    pushId: request.pushId,
    actor: request.actor,
    pusher: request.pusher ?? { name: request.actor, groups: [] },
    pushOptions: request.pushOptions,
    commands,
    nonFastForwards: () => judged.replica.nonFastForwards(key, commands, request.signal),
    runHook: (run) => judged.replica.runHook(key, run),
    inspect: (inspection) => judged.replica.inspect(key, inspection),
    currentBranch: judged.prepared.currentBranch,
    progress: request.progress,
    signal: request.signal,
  };
  const refusal = await dependencies.pipeline.preReceive(context);
  if (refusal !== undefined) {
    for (const { ref } of commands) refusals.set(ref, refusal);
    return;
  }
  for (const [ref, reason] of await dependencies.pipeline.update(context)) {
    refusals.set(ref, reason);
  }
}

async function abort(
  dependencies: PushDependencies,
  key: QuarantineKey,
  members: readonly Member[],
): Promise<void> {
  await Promise.all(
    members.map(async ({ storeId, replica }) => {
      try {
        await replica.abort(key);
      } catch (error) {
        // The store itself finds what stays behind.
        dependencies.logger.warn(
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

function report(
  request: PushRequest,
  refusals: ReadonlyMap<string, string>,
  committed?: { readonly generation: number } | { readonly nothing: true },
): PushResult {
  const refs = request.commands.map(({ ref, oldOid, newOid }): RefOutcome => {
    const reason =
      refusals.get(ref) ?? (request.atomic && refusals.size > 0 ? atomicFailure : undefined);
    return reason === undefined
      ? { ref, status: 'ok', oldOid, newOid }
      : { ref, status: 'refused', reason };
  });
  return {
    unpack: 'ok',
    refs,
    ...(committed !== undefined && 'generation' in committed
      ? { generation: committed.generation }
      : {}),
  };
}

function unpackFailed(
  request: PushRequest,
  refusals: ReadonlyMap<string, string>,
  problem: string,
): PushResult {
  return {
    unpack: problem,
    refs: request.commands.map(({ ref }) => ({
      ref,
      status: 'refused',
      reason: refusals.get(ref) ?? 'unpacker error',
    })),
  };
}
