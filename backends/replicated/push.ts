import type { PushRequest, PushResult } from '../contract/backend.js';
import { asQuorateError, type ErrorCode } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { PushContext, PushPipeline } from '../contract/pipeline.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { RefOutcome } from '../contract/repository.js';
import { commitChange, type CommitDependencies, type Judged, timed } from './commit.js';
import { primaryOf } from './voters.js';
import type { Attendance } from './outbox.js';
import type { RepositoryRecord } from './records.js';

export interface PushDependencies extends CommitDependencies {
  readonly pipeline: PushPipeline;
  /** Listens to the post-receive stage of a push, from before its commit on. */
  readonly attend: (pushId: string, progress: (text: Uint8Array) => void) => Attendance;
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
  const unpackProblem = await upload(dependencies, { repository, request, key });
  if (unpackProblem !== undefined) return unpackFailed(request, refusals, unpackProblem);

  let leaveQuarantine = false;
  let talks = false;
  const attendance = dependencies.attend(request.pushId, request.progress);
  try {
    const committed = await commitChange(dependencies, {
      key,
      actor: request.actor,
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
    if (!leaveQuarantine) await abort(dependencies, repository, key);
  }
}

/** Codes that the pusher is told of as the reason of a failed unpack; anything else is an error of the request. */
const packProblems: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'resource-exhausted',
  'storage-failure',
  'data-corrupt',
]);

/** Why the pack was not taken, or undefined when it was. Trouble that is not the pack's is thrown. */
async function upload(
  dependencies: PushDependencies,
  {
    repository,
    request,
    key,
  }: { repository: RepositoryRecord; request: PushRequest; key: QuarantineKey },
): Promise<string | undefined> {
  const { pack } = request;
  if (pack === undefined) return undefined;
  const replica = primaryOf(dependencies.replicas, repository.voters);
  try {
    await timed(dependencies, 'upload', () =>
      replica.upload(key, pack, {
        settings: repository.settings,
        signal: request.signal,
        progress: request.quiet ? () => undefined : request.progress,
      }),
    );
    return undefined;
  } catch (error) {
    const { code, message } = asQuorateError(error);
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
    return `${message}${hint}`;
  }
}

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
  repository: RepositoryRecord,
  key: QuarantineKey,
): Promise<void> {
  try {
    await dependencies.replicas.find(repository.voters[0]?.storeId ?? '')?.abort(key);
  } catch (error) {
    // The sweeper finds what stays behind.
    dependencies.logger.warn(
      { component: 'push', repo: repository.id, push_id: key.pushId, err: error },
      'a refused push left its quarantine behind',
    );
  }
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
