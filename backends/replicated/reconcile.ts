import { majorityOf } from './quorum.js';
import type { RepositoryRecord, Voter } from './records.js';

/** What is known of a store of a replica set. */
export interface StoreView {
  /** Its node answers, and does not say that its disk hangs. */
  readonly alive: boolean;
  /** How long that has not been so, as far as the controller saw; 0 while alive. */
  readonly awayMs: number;
  /** Its node announces itself with another store: this one is gone for good. */
  readonly replaced?: boolean;
  /** What it has is to move away: its node drains, was removed, or is not among those that were asked for. */
  readonly leaving: boolean;
  /** Applied generation and digest; absent when it was not asked, does not answer or has nothing. */
  readonly state?: {
    readonly generation: number;
    readonly digest: string;
    readonly frozen?: string;
  };
  /** It answers that it has no copy. */
  readonly missing?: boolean;
  /** A verification found damage. */
  readonly damaged?: boolean;
  /** It was filled a moment ago, up to what was the head then. */
  readonly filled?: boolean;
  /** It could not be filled just now, and for how long it could not; absent: that was not tried. */
  readonly unfilledMs?: number;
}

export interface SetView {
  readonly record: Pick<RepositoryRecord, 'voters' | 'learners' | 'readers'>;
  /** Copies that are only read, as many as there should be now. */
  readonly wantedReaders: number;
  readonly head: { readonly generation: number; readonly digest: string };
  /** By store id. */
  readonly stores: ReadonlyMap<string, StoreView>;
  /** Entries in the push log. */
  readonly logLength: number;
  /** Every node that may have a copy has one: nobody can be added. */
  readonly nobodyToAdd?: boolean;
}

export interface ReconcileLimits {
  readonly replicationFactor: number;
  /** A voter away for so long is declared down: `strong` goes on without it. */
  readonly downAfterMs: number;
  /** A voter away for so long is replaced. */
  readonly repairAfterMs: number;
  /** With more entries in the log, whoever holds them up is declared stale. */
  readonly maxLog: number;
}

/** One step towards the replica set that is wanted. All but `fill` are changes of configuration. */
export type Step =
  /** A node is to be chosen that has no copy. */
  | { readonly type: 'add-learner' }
  /** The copy has to catch up; `fresh`: what is there is set aside first. */
  | { readonly type: 'fill'; readonly storeId: string; readonly fresh: boolean }
  /** `inPlaceOf`: a damaged voter, which becomes a learner by the same change. */
  | { readonly type: 'promote'; readonly storeId: string; readonly inPlaceOf?: string }
  | { readonly type: 'demote'; readonly storeId: string }
  | { readonly type: 'remove-voter'; readonly storeId: string }
  | { readonly type: 'drop-learner'; readonly storeId: string }
  /** A node is to be chosen that has no copy, for one that is only read. */
  | { readonly type: 'add-reader' }
  | { readonly type: 'drop-reader'; readonly storeId: string }
  | { readonly type: 'declare'; readonly storeId: string; readonly state: Voter['state'] };

/**
 * The next step for a replica set, or undefined when it is as it should be, or nothing safe can be done now. The steps
 * are taken one at a time and judged anew after each; the change of configuration compares the head, so that what was
 * true here is true when it happens.
 *
 * A voter leaves the set, or counts no more, only if a majority of what then is the set has applied the head, soundly;
 * the last sound copy never does.
 */
export function nextStep(view: SetView, limits: ReconcileLimits): Step | undefined {
  return (
    setAsideDamaged(view, limits) ??
    declare(view, limits) ??
    fillLearner(view, limits) ??
    replace(view, limits) ??
    shrink(view, limits) ??
    keepReaders(view, limits) ??
    fillLeaving(view)
  );
}

/**
 * The next step if all stores that live had applied the head by now. In a repository that is pushed to all the time some
 * of them always lag for a moment: what the change of a set waits for would never be seen.
 */
export function nextStepAtHead(view: SetView, limits: ReconcileLimits): Step | undefined {
  const { generation, digest } = view.head;
  const atHead = (store: StoreView): StoreView => {
    const { alive, state } = store;
    const lags = alive && state !== undefined && state.generation < generation;
    if (!lags || lacksMoreThanLog(view, store)) return store;
    return { ...store, state: { ...state, generation, digest } };
  };
  const stores = new Map([...view.stores].map(([storeId, store]) => [storeId, atHead(store)]));
  return nextStep({ ...view, stores }, limits);
}

/**
 * A frozen or damaged copy becomes a learner, whose copy is then filled anew. Not while another one learns, if fewer
 * would be left than a push should be at: that one votes first.
 */
function setAsideDamaged(
  { record, ...view }: SetView,
  { replicationFactor }: ReconcileLimits,
): Step | undefined {
  const { voters, learners } = record;
  const fewest = learners.length > 0 ? Math.floor(replicationFactor / 2) + 1 : 1;
  for (const { storeId } of voters) {
    const store = view.stores.get(storeId);
    if (store === undefined || !isDamaged(view, store)) continue;
    const rest = voters.filter((voter) => voter.storeId !== storeId);
    if (rest.length >= fewest && holdsHead({ record, ...view }, rest)) {
      return { type: 'demote', storeId };
    }
  }
  return undefined;
}

function declare(view: SetView, { downAfterMs, maxLog }: ReconcileLimits): Step | undefined {
  const { voters } = view.record;
  for (const { storeId, state } of voters) {
    const store = view.stores.get(storeId);
    if (store === undefined) continue;
    const current = isCurrent(view, store);
    // While the log is too long it would be declared stale again by the next look.
    const follows = view.logLength <= maxLog && isNearlyFilled(view, store);
    if (state !== undefined && (current || follows)) {
      return { type: 'declare', storeId, state: undefined };
    }
    // A copy that went, by hand or since an older coordinator does not know that it left, comes back by no push. Nor
    // does what a disk lacks that was put back to an older copy: the log has it no more.
    if (state === 'stale' || lacksMoreThanLog(view, store)) {
      const isNeeded = !store.leaving || view.nobodyToAdd === true;
      if (isNeeded && mayBeFilled(view, store)) return { type: 'fill', storeId, fresh: false };
    }
    if (state === 'stale') continue;
    const counting = voters.filter((voter) => voter.storeId !== storeId && voter.state !== 'stale');
    if (view.logLength > maxLog && !current && holdsHead(view, counting, voters)) {
      return { type: 'declare', storeId, state: 'stale' };
    }
    const isDown = store.replaced === true || store.awayMs >= downAfterMs;
    if (state === undefined && !store.alive && isDown) {
      return { type: 'declare', storeId, state: 'down' };
    }
  }
  return undefined;
}

/**
 * Whether a voter lacks what the push log does not hold any more (that goes when every voter had it), or answers that it
 * has no copy.
 */
export function lacksMoreThanLog(
  { head, logLength }: SetView,
  { state, missing }: StoreView,
): boolean {
  if (missing === true) return true;
  return state !== undefined && state.generation + logLength < head.generation;
}

function mayBeFilled(view: SetView, store: StoreView): boolean {
  return store.alive && store.unfilledMs === undefined && !isDamaged(view, store);
}

/** Somebody takes its place. Until then it may make up a majority for that one. */
function fillLeaving(view: SetView): Step | undefined {
  const stale = view.record.voters.find(({ storeId, state }) => {
    const store = view.stores.get(storeId);
    return state === 'stale' && store !== undefined && mayBeFilled(view, store);
  });
  return stale === undefined ? undefined : { type: 'fill', storeId: stale.storeId, fresh: false };
}

/**
 * A learner becomes a voter, beside the others or in the place of a damaged one: with too few others that one could not
 * be set aside, and beside it nobody could become a voter, since it does not count as holding the head.
 */
function fillLearner(view: SetView, limits: ReconcileLimits): Step | undefined {
  const { voters, learners } = view.record;
  const wanted = limits.replicationFactor - staying(view, limits).length;
  for (const { storeId } of learners) {
    const store = view.stores.get(storeId);
    const lost = store === undefined || store.leaving || isLost(store, limits);
    if (lost || wanted <= 0) return { type: 'drop-learner', storeId };
    if (!store.alive || store.unfilledMs !== undefined) continue;
    const isCounted = isNearlyFilled(view, store) ? isNear : isCurrent;
    if (!isCounted(view, store)) return { type: 'fill', storeId, fresh: isDamaged(view, store) };
    const holds = (set: readonly Pick<Voter, 'storeId'>[]): boolean =>
      countOf(view, set, isCounted) >= majorityOf(set);
    if (holds([...voters, { storeId }])) return { type: 'promote', storeId };
    const inPlaceOf = voters.find(
      (voter) =>
        isDamagedStore(view, voter) &&
        holds([...voters.filter((other) => other !== voter), { storeId }]),
    )?.storeId;
    if (inPlaceOf !== undefined) return { type: 'promote', storeId, inPlaceOf };
  }
  return undefined;
}

function isDamagedStore(view: SetView, { storeId }: Voter): boolean {
  const store = view.stores.get(storeId);
  return store !== undefined && isDamaged(view, store);
}

/** For each voter that leaves, a learner first; the voter goes when that one has taken its place. */
function replace(view: SetView, limits: ReconcileLimits): Step | undefined {
  const { voters, learners } = view.record;
  const stay = staying(view, limits);
  // One more than learners that cannot be filled: that may be the fault of who is to send it.
  const isSpare = learners.some(({ storeId }) => isUnfit(view.stores.get(storeId), limits));
  if (stay.length + learners.length - (isSpare ? 1 : 0) < limits.replicationFactor) {
    return (view.nobodyToAdd === true ? setAsideAlone(view, limits) : undefined) ?? addLearner;
  }
  if (stay.length < limits.replicationFactor) return undefined;
  const leaving = voters.find((voter) => !stay.includes(voter));
  return leaving === undefined ? undefined : removal(view, leaving);
}

const addLearner: Step = { type: 'add-learner' };

/**
 * Most voters are damaged, and nobody is left to take the place of one: it is set aside, to be filled from a sound one,
 * if the others have applied the head. Then as many sound copies have it as before, and no push is lost with the files
 * that are set aside; until it is back, a push needs the damaged one that is left, too.
 */
function setAsideAlone({ record, ...view }: SetView, limits: ReconcileLimits): Step | undefined {
  const { voters } = record;
  const views = (some: readonly Voter[]): readonly StoreView[] =>
    some.flatMap(({ storeId }) => view.stores.get(storeId) ?? []);
  const next = voters.find((voter) => {
    const rest = voters.filter((other) => other !== voter);
    const [store] = views([voter]);
    return (
      store !== undefined &&
      store.alive &&
      isDamaged(view, store) &&
      needsRelief({ record, ...view }, voter, limits) &&
      views(rest).some((other) => isCurrent({ record, ...view }, other)) &&
      views(rest).filter((other) => hasApplied(view, other)).length >= majorityOf(rest)
    );
  });
  return next === undefined ? undefined : { type: 'demote', storeId: next.storeId };
}

/** More voters than wanted: the last that joined goes. */
function shrink(view: SetView, { replicationFactor }: ReconcileLimits): Step | undefined {
  const { voters } = view.record;
  if (voters.length <= replicationFactor) return undefined;
  const last = voters.toSorted((a, b) => b.joinedEpoch - a.joinedEpoch)[0];
  return last === undefined ? undefined : removal(view, last);
}

/** Readers count for nothing: they may come and go at any time, and do so last. */
function keepReaders(view: SetView, limits: ReconcileLimits): Step | undefined {
  const { readers = [] } = view.record;
  for (const { storeId, state } of readers) {
    const store = view.stores.get(storeId);
    const lost = store === undefined || store.leaving || store.awayMs >= limits.downAfterMs;
    if (lost || isDamaged(view, store)) return { type: 'drop-reader', storeId };
    if (state === undefined || !store.alive || store.unfilledMs !== undefined) continue;
    return isCurrent(view, store) || isNearlyFilled(view, store)
      ? { type: 'declare', storeId, state: undefined }
      : { type: 'fill', storeId, fresh: false };
  }
  const last = readers.at(-1);
  if (last !== undefined && readers.length > view.wantedReaders) {
    return { type: 'drop-reader', storeId: last.storeId };
  }
  return readers.length < view.wantedReaders ? { type: 'add-reader' } : undefined;
}

function removal(view: SetView, { storeId }: Voter): Step | undefined {
  const rest = view.record.voters.filter((voter) => voter.storeId !== storeId);
  return holdsHead(view, rest) ? { type: 'remove-voter', storeId } : undefined;
}

/** Voters that are neither lost, nor unfit, nor to move away, nor wait for somebody to take their place. */
function staying(view: SetView, limits: ReconcileLimits): readonly Voter[] {
  return view.record.voters.filter((voter) => {
    const store = view.stores.get(voter.storeId);
    if (store === undefined || store.leaving || isLost(store, limits)) return false;
    if (isUnfit(store, limits)) return false;
    return !isDamaged(view, store) || !needsRelief(view, voter, limits);
  });
}

/**
 * Whether a damaged voter will not be set aside, whoever comes back: too many of the others are damaged or lost. Somebody
 * is to take its place then, as long as there is a sound copy to fill that one from.
 */
function needsRelief(view: SetView, voter: Voter, limits: ReconcileLimits): boolean {
  const rest = view.record.voters.filter((other) => other !== voter);
  const sound = rest.flatMap(({ storeId }) => {
    const store = view.stores.get(storeId);
    return store === undefined || isDamaged(view, store) || isLost(store, limits) ? [] : [store];
  });
  return sound.length < majorityOf(rest) && sound.some(({ state }) => state !== undefined);
}

function isLost(store: StoreView, { repairAfterMs }: ReconcileLimits): boolean {
  return !store.alive && (store.replaced === true || store.awayMs >= repairAfterMs);
}

/** It lives, and takes nothing: its disk fails, perhaps. */
function isUnfit(store: StoreView | undefined, { repairAfterMs }: ReconcileLimits): boolean {
  return (store?.unfilledMs ?? 0) >= repairAfterMs;
}

/**
 * A copy that is frozen because it is ahead of the head is not: then it is the coordinator that forgot something, and
 * what was acknowledged since may be nowhere else.
 */
function isDamaged({ head }: Pick<SetView, 'head'>, { damaged, state }: StoreView): boolean {
  if (damaged === true) return true;
  return state?.frozen !== undefined && state.generation <= head.generation;
}

/** It has applied the head, its refs are the head's, and nothing is known against its objects. */
function isCurrent(view: SetView, store: StoreView): boolean {
  return !isDamaged(view, store) && hasApplied(view, store);
}

/** Pushes that come while a copy is filled, and are applied in a moment: a busy repository has some in a second. */
const nearGenerations = 64;

/** It was at the head a moment ago, or nearly, and nothing is known against it. */
function isNear(view: SetView, store: StoreView): boolean {
  const { alive, state } = store;
  if (!alive || state === undefined || isDamaged(view, store)) return false;
  return state.generation + nearGenerations >= view.head.generation;
}

/**
 * It was filled, and pushes have come meanwhile. In a repository that is pushed to all the time each look finds that:
 * filled until no push comes it would be for ever.
 */
function isNearlyFilled(view: SetView, store: StoreView): boolean {
  return store.filled === true && isNear(view, store);
}

/** It has applied the head, and its refs are the head's. */
function hasApplied({ head }: Pick<SetView, 'head'>, { alive, state }: StoreView): boolean {
  return (
    alive &&
    state !== undefined &&
    state.frozen === undefined &&
    state.generation >= head.generation &&
    (state.generation > head.generation || state.digest === head.digest)
  );
}

/** Whether a majority of `set` is among `counted` and has applied the head. */
function holdsHead(
  view: SetView,
  counted: readonly Pick<Voter, 'storeId'>[],
  set: readonly Pick<Voter, 'storeId'>[] = counted,
): boolean {
  return countOf(view, counted, isCurrent) >= majorityOf(set);
}

function countOf(
  view: SetView,
  set: readonly Pick<Voter, 'storeId'>[],
  isCounted: (view: SetView, store: StoreView) => boolean,
): number {
  return set.filter(({ storeId }) => {
    const store = view.stores.get(storeId);
    return store !== undefined && isCounted(view, store);
  }).length;
}
