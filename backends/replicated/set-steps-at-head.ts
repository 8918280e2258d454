import { inTime } from './held-copies.js';
import {
  nextStep,
  nextStepAtHead,
  type ReconcileLimits,
  type SetView,
  type Step,
} from './reconcile.js';
import {
  isReinstatement,
  isSomebodyToAdd,
  type StepDependencies,
  takeStep,
  whilePushesWait,
} from './set-steps.js';
import { readGround, type SetGround, viewOf, type ViewDependencies } from './set-view.js';
import type { ReplicaDirectory } from './voters.js';

/** What a set needs, as it is at one revision of its configuration and head. */
export interface Judged {
  readonly view: SetView;
  readonly step: Step | undefined;
  /** To take the step with. */
  readonly stepping: StepDependencies;
}

export async function judgeSet(
  {
    viewing,
    stepping: around,
    limits,
  }: {
    readonly viewing: ViewDependencies;
    readonly stepping: Omit<StepDependencies, 'target'>;
    readonly limits: ReconcileLimits;
  },
  ground: SetGround,
): Promise<Judged> {
  const view = await viewOf(viewing, ground);
  const stepping = { ...around, target: view.target };
  const step = nextStep(view, limits);
  if (step?.type !== 'add-learner' || isSomebodyToAdd(stepping, ground)) {
    return { view, step, stepping };
  }
  const alone = { ...view, nobodyToAdd: true };
  return { view: alone, step: nextStep(alone, limits), stepping };
}

/** For the stores of a set, to apply what was committed when it was looked at. */
const applyTimeoutMs = 10_000;
/** Changes of configuration alone: what copies, or takes the lock itself, is not for holding up pushes. */
const mereChanges: ReadonlySet<Step['type']> = new Set(['demote', 'remove-voter', 'declare']);

function isMereChange({ record }: Pick<SetView, 'record'>, step: Step): boolean {
  return mereChanges.has(step.type) && !isReinstatement(record, step);
}

/** Whether a set waits for nothing but that stores apply what was committed a moment ago. */
export function waitsForApplies({ view, step }: Judged, limits: ReconcileLimits): boolean {
  if (step !== undefined) return false;
  const next = nextStepAtHead(view, limits);
  return next !== undefined && isMereChange(view, next);
}

/**
 * Takes the step that there is once stores have applied the head. In a repository that is pushed to all the time some
 * store always lags, and the head is another one when the change of configuration compares it: pushes wait for it, for
 * as long as these stores take to apply what came in meanwhile. Those that do not keep up without that hold up no push.
 *
 * Returns the step if it was taken; it is judged anew otherwise.
 */
export async function takeStepAtHead(
  dependencies: StepDependencies,
  ground: SetGround,
  judge: (ground: SetGround) => Promise<Judged>,
  signal: AbortSignal,
): Promise<Step | undefined> {
  const { coordinator, replicas, clock } = dependencies;
  const { id, voters } = ground.record;
  const tooLate = new AbortController();
  const patience = clock.sleep(applyTimeoutMs, AbortSignal.any([tooLate.signal, signal]));
  const storeIds = voters.map(({ storeId }) => storeId);
  await applyHead(replicas, ground, storeIds, patience).finally(() => tooLate.abort());
  const { view, step } = await judge(ground);
  if (step === undefined || !isMereChange(view, step) || signal.aborted) return undefined;
  const current = storeIds.filter((storeId) => {
    const { alive = false, state } = view.stores.get(storeId) ?? {};
    return alive && state !== undefined && state.generation >= ground.head.generation;
  });
  return whilePushesWait(dependencies, id, signal, async ({ compares, late }) => {
    const now = await readGround(coordinator, id);
    if (now === undefined) return undefined;
    await applyHead(replicas, now, current, late);
    const judged = await inTime(judge(now), late);
    if (judged.step === undefined || !isMereChange(judged.view, judged.step)) return undefined;
    const taken = await takeStep({ ...judged.stepping, held: compares }, now, judged.step, signal);
    return taken ? judged.step : undefined;
  });
}

/** As far as they can in time: what became of it is in the next view of the set. */
async function applyHead(
  replicas: ReplicaDirectory,
  { record: { id }, head: { generation } }: SetGround,
  storeIds: readonly string[],
  late: Promise<void>,
): Promise<void> {
  const applying = storeIds.map(async (storeId) => {
    await replicas.find(storeId)?.apply(id, generation);
  });
  await Promise.race([Promise.allSettled(applying), late]);
}
