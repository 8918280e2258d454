import type { PushRequest, PushResult } from '../contract/backend.js';
import { asQuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { PushContext, PushJudges, PushPipeline } from '../contract/pipeline.js';
import type { QuarantineKey } from '../contract/replica.js';
import type { RefOutcome } from '../contract/repository.js';
import { isZero } from '../git/ref-commands.js';
import { commitChange, type CommitDependencies, type Judged } from './commit.js';
import type { Attendance } from './outbox.js';
import type { PushBeginning } from './push-ahead.js';
import { abortUpload, type NotTaken, notTaken, upload } from './push-upload.js';
import { isPackProblem, type SmallPacks } from './small-packs.js';
import { configuredConsistency, type Consistency, isConsistency } from './quorum.js';
import type { PushTrace } from './push-trace.js';
import type { RepositoryRecord } from './records.js';
import { type Member, reachable } from './voters.js';

export interface PushDependencies extends CommitDependencies {
  readonly pipeline: PushPipeline;
  /** Listens to the post-receive stage of a push, from before its commit on. */
  readonly attend: (pushId: string, progress: (text: Uint8Array) => void) => Attendance;
  /** Of pushes that say nothing else, to repositories that say nothing else. */
  readonly consistency: Consistency;
  readonly trace: PushTrace;
  readonly smallPacks: SmallPacks;
}

/** How long a pusher waits for the words of a post-receive hook. What comes later is in the log. */
const attendMs = 2_000;

/** So long a pusher waits until what he brought is counted: a store whose disk hangs says later how large it is. */
const settlePatienceMs = 3_000;

/** git's words: such a command succeeds, and is in no log. */
const deletesNothing = Buffer.from('warning: deleting a non-existent ref\n');

/** What git says of the other refs when one ref of an atomic push is refused. */
/** Of a ref against which nothing was said, where another was refused and the push is for all or none. */
export const atomicFailure = 'atomic push failure';

/**
 * The push path: upload without locks, unless the pack is small and goes with `prepare`, then lock, prepare, judge,
 * commit, apply (docs/architecture.md, "A push").
 */
export async function runPush(
  dependencies: PushDependencies,
  { repository, ground, ahead }: PushBeginning,
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
    ground,
  });
  if ('problem' in uploaded) return unpackFailed(request, refusals, uploaded);
  const { members, small, packBytes, allowance } = uploaded;

  let isCommitted = false;
  let leaveQuarantine = false;
  let talks = false;
  let nobodyToTell = false;
  let judges: PushJudges | undefined;
  /** Stores that may have something of it, by their ids: those of a configuration that came meanwhile, too. */
  const reached = new Map<string, Member>();
  const attendance = dependencies.attend(request.pushId, request.progress);
  try {
    const committed = await commitChange(dependencies, {
      key,
      actor: request.actor,
      ...(members === undefined ? {} : { members }),
      pack: small,
      // What was read before an upload of any length is old by now.
      ...(members === undefined ? { ahead } : {}),
      consistency,
      trace: dependencies.trace,
      commands: candidates(),
      pushOptions: request.pushOptions,
      shallow: request.shallow,
      signal: request.signal,
      asking: (those) => {
        for (const member of those) reached.set(member.storeId, member);
      },
      locked: (record) => {
        judges = dependencies.pipeline.judges(record);
      },
      nobodyToTell: () => nobodyToTell,
      committed: (committed) => request.committed?.(report(request, refusals, committed)),
      judge: async (judged) => {
        // Every round judges afresh: what an earlier round refused may be fine at the new basis.
        refusals.clear();
        for (const [ref, reason] of request.refused) refusals.set(ref, reason);
        for (const [ref, reason] of judged.prepared.refused) refusals.set(ref, reason);
        judges ??= dependencies.pipeline.judges(judged.repository);
        await runStages(judges, {
          judged,
          request,
          key,
          refusals,
          candidates,
          packBytes: packBytes(),
        });
        // It is about words for the pusher only, and no reason to fail.
        talks = await judges.talksAfterCommit().catch(() => false);
        nobodyToTell = (await judges.nobodyToTell?.().catch(() => false)) ?? false;
        const changes = candidates().filter(
          ({ oldOid, newOid }) => !isZero(oldOid) || !isZero(newOid),
        );
        if (changes.length < candidates().length) request.progress(deletesNothing);
        return changes;
      },
    });
    isCommitted = 'generation' in committed;
    leaveQuarantine = isCommitted;
    if (talks && leaveQuarantine) await attendance.over(attendMs);
    return report(request, refusals, committed);
  } catch (error) {
    leaveQuarantine = asQuorateError(error).code === 'outcome-unknown';
    if (!isPackProblem(asQuorateError(error))) throw error;
    const problem = notTaken(dependencies, error, { repository, request, allowance });
    return unpackFailed(request, refusals, problem);
  } finally {
    uploaded.release();
    attendance.leave();
    // There may be a quota since the push began.
    const settling = (allowance ?? judges)?.settle?.(request.pushId, isCommitted);
    if (settling !== undefined) await atMost(settlePatienceMs, dependencies, settling);
    if (!leaveQuarantine) {
      const sentTo = members ?? reachable(dependencies.replicas, repository.voters);
      for (const member of sentTo) reached.set(member.storeId, member);
      await abortUpload(dependencies, key, [...reached.values()]);
    }
  }
}

/** Waits for what never fails, and goes on in the background. */
async function atMost(
  ms: number,
  { clock }: Pick<PushDependencies, 'clock'>,
  work: Promise<void>,
): Promise<void> {
  const over = new AbortController();
  await Promise.race([work, clock.sleep(ms, over.signal)]);
  over.abort('over');
}

/** The push option that asks for another consistency than the configured one: `-o consistency=strong`. */
const consistencyOption = 'consistency=';

const unknownConsistency = 'the push option consistency wants eventual, quorum or strong';

function askedConsistency(pushOptions: readonly string[]): Consistency | 'unknown' | undefined {
  const option = pushOptions.findLast((one) => one.startsWith(consistencyOption));
  if (option === undefined) return undefined;
  const word = option.slice(consistencyOption.length);
  return isConsistency(word) ? word : 'unknown';
}

async function runStages(
  judges: PushJudges,
  {
    judged,
    request,
    key,
    refusals,
    candidates,
    packBytes,
  }: {
    judged: Judged;
    packBytes: number;
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
    packBytes,
  };
  const refusal = await judges.preReceive(context);
  if (refusal !== undefined) {
    for (const { ref } of commands) refusals.set(ref, refusal);
    return;
  }
  for (const [ref, reason] of await judges.update(context)) {
    refusals.set(ref, reason);
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
  { problem, ofEachRef }: NotTaken,
): PushResult {
  return {
    unpack: problem,
    refs: request.commands.map(({ ref }) => ({
      ref,
      status: 'refused',
      reason: refusals.get(ref) ?? ofEachRef,
    })),
  };
}
