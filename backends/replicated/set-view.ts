import type { Coordinator, KeyValue, OperationResult } from '../contract/coordinator.js';
import type { Clock } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { ReplicaState } from '../contract/replica.js';
import type { HeadRecord } from '../contract/repository.js';
import { damagesOf, reportsIn } from './damage.js';
import { goneForGood } from './gone-stores.js';
import { inTime } from './held-copies.js';
import type { SetView, StoreView } from './reconcile.js';
import {
  copiesOf,
  decodeHead,
  decodeRepository,
  type RepositoryRecord,
  type Voter,
} from './records.js';
import { hangingStores } from './stuck.js';
import type { ReplicaDirectory } from './voters.js';

/** A repository's configuration and head at one revision. */
export interface SetGround {
  readonly record: RepositoryRecord;
  readonly configRevision: number;
  readonly head: HeadRecord;
  readonly headRevision: number;
  /** Copies in which a verification found damage: the revision of the report, by store. */
  readonly damages: ReadonlyMap<string, number>;
}

/** Undefined when the repository is not active. */
export async function readGround(
  coordinator: Coordinator,
  id: string,
): Promise<SetGround | undefined> {
  const { results } = await coordinator.transaction({
    compares: [],
    success: [
      { type: 'get', key: keys.repo(id) },
      { type: 'get', key: keys.head(id) },
      damagesOf(id),
    ],
    failure: [],
  });
  const [[repository] = [], [head] = [], reports = []] = results.map(entriesOf);
  if (repository === undefined || head === undefined) return undefined;
  const record = decodeRepository(repository);
  if (record.state !== 'active') return undefined;
  return {
    record,
    configRevision: repository.modRevision,
    head: decodeHead(head),
    headRevision: head.modRevision,
    damages: reportsIn(reports),
  };
}

/** Whether somebody was there first: a push was committed since, or the configuration is another one. */
export async function hasMoved(
  coordinator: Coordinator,
  { record, configRevision, headRevision }: SetGround,
): Promise<boolean> {
  const now = await readGround(coordinator, record.id);
  return now?.headRevision !== headRevision || now.configRevision !== configRevision;
}

export interface ViewDependencies {
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
  readonly clock: Pick<Clock, 'sleep'>;
  /** How long a store has been away, or its disk hung by its own word; 0 while it is neither. */
  readonly awayMs: (storeId: string) => number;
  /** Whether what a node has is to move away. */
  readonly leaving: (nodeId: string) => boolean;
  /** Whether a store was filled a moment ago. */
  readonly filled: (storeId: string) => boolean;
  /** For how long a store could not be filled; undefined: that was not tried just now. */
  readonly unfilledMs: (storeId: string) => number | undefined;
  readonly maxLog: number;
  readonly repairAfterMs: number;
  /** Copies that are only read, as many as it should have now. */
  readonly wantedReaders: (record: RepositoryRecord) => number;
}

/**
 * The nodes that were asked for (`repo move`), as long as every one of them is fit: one that is to leave, or is gone
 * for so long that its copy is replaced, must not keep a repository from being whole. When it is back, or never was
 * needed, the wish holds again.
 */
export function fitTarget(
  { target, voters, learners }: Pick<RepositoryRecord, 'target' | 'voters' | 'learners'>,
  {
    replicas,
    awayMs,
    leaving,
    repairAfterMs,
  }: Pick<ViewDependencies, 'replicas' | 'awayMs' | 'leaving' | 'repairAfterMs'>,
): readonly string[] | undefined {
  const known = [...replicas.nodes(), ...voters, ...learners];
  const fit = target?.every((wanted) => {
    if (leaving(wanted)) return false;
    const store = known.find(({ nodeId }) => nodeId === wanted);
    return store !== undefined && awayMs(store.storeId) < repairAfterMs;
  });
  return fit === true ? target : undefined;
}

/** Whether a set is as it should be by its record, and by what is known without asking its stores. */
export function looksWell(
  record: RepositoryRecord,
  viewing: ViewDependencies,
  {
    replicationFactor,
    isFit,
  }: { readonly replicationFactor: number; readonly isFit: (copy: Voter) => boolean },
): boolean {
  const { voters, learners, readers = [] } = record;
  const target = fitTarget(record, viewing);
  return (
    learners.length === 0 &&
    voters.length === replicationFactor &&
    [...voters, ...readers].every((copy) => copy.state === undefined && isFit(copy)) &&
    (target === undefined || voters.every(({ nodeId }) => target.includes(nodeId))) &&
    readers.length === viewing.wantedReaders(record)
  );
}

/** For the answers of all stores: many sets are looked at, few at the same time, and a disk may hang. */
const answerTimeoutMs = 10_000;

/** Asks every member of a replica set how far it is. One that does not answer in time is taken for one that is away. */
export async function viewOf(
  dependencies: ViewDependencies,
  ground: SetGround,
): Promise<SetView & { readonly target: readonly string[] | undefined }> {
  const { record, head } = ground;
  const { id } = record;
  const { coordinator, clock, maxLog } = dependencies;
  const over = new AbortController();
  const late = clock.sleep(answerTimeoutMs, over.signal);
  const members = copiesOf(record);
  const isReader = (storeId: string): boolean =>
    record.readers?.some((reader) => reader.storeId === storeId) === true;
  const [log, ...stores] = await Promise.all([
    coordinator.range(keys.log(id), {
      rangeEnd: prefixEnd(keys.log(id)),
      limit: maxLog + 1,
      keysOnly: true,
    }),
    ...members.map(async ({ nodeId, storeId }): Promise<readonly [string, StoreView]> => [
      storeId,
      await storeView(dependencies, ground, { nodeId, storeId, late }),
    ]),
  ]).finally(() => over.abort('over'));
  const wanted = fitTarget(record, dependencies);
  const asked = (nodeId: string): boolean => wanted === undefined || wanted.includes(nodeId);
  return {
    record,
    head,
    wantedReaders: dependencies.wantedReaders(record),
    target: wanted,
    logLength: log.entries.length,
    stores: new Map(
      stores.map(([storeId, view]) => {
        const nodeId = members.find((member) => member.storeId === storeId)?.nodeId ?? '';
        // Whoever asked for nodes asked for voters.
        const astray = !isReader(storeId) && !asked(nodeId);
        return [storeId, { ...view, leaving: view.leaving || astray }];
      }),
    ),
  };
}

async function storeView(
  { replicas, awayMs, leaving, filled, unfilledMs: unfilledFor }: ViewDependencies,
  { record, head, damages }: SetGround,
  {
    nodeId,
    storeId,
    late,
  }: { readonly nodeId: string; readonly storeId: string; readonly late: Promise<void> },
): Promise<StoreView> {
  const replica = replicas.find(storeId);
  // Also of one that cannot even say how far it is.
  const reported = damages.has(storeId);
  const replaced = goneForGood({ nodeId, storeId }, replicas.nodes(), new Map()) !== undefined;
  const unfilledMs = unfilledFor(storeId);
  const known = {
    ...(unfilledMs === undefined ? {} : { unfilledMs }),
    filled: filled(storeId),
    awayMs: awayMs(storeId),
    leaving: leaving(nodeId),
    damaged: reported,
    replaced,
  };
  // What a store says whose disk hangs is of its memory, if it says anything.
  const hangs = hangingStores(replicas).has(storeId);
  if (replica === undefined || hangs) return { ...known, alive: false };
  let state: ReplicaState | undefined;
  try {
    state = await inTime(replica.state(record.id), late);
  } catch (error) {
    const alive = asQuorateError(error).code !== 'unavailable';
    return { ...known, alive };
  }
  const differs =
    state !== undefined && state.generation === head.generation && state.digest !== head.digest;
  return {
    ...known,
    alive: true,
    ...(state === undefined ? { missing: true } : { state }),
    damaged: differs || reported,
  };
}

function entriesOf(result: OperationResult): readonly KeyValue[] {
  return result.type === 'get' ? result.entries : [];
}
