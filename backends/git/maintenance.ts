import { join } from 'node:path';
import type { MaintenanceProgress, MaintenanceReport } from '../contract/backend.js';
import type { Clock } from '../contract/environment.js';
import type { Oid } from '../contract/objects.js';
import { restoreKept } from './kept-objects.js';
import { removeLocksOfPacking } from './ref-files.js';
import {
  readObjectStoreStats,
  removeHalfWritten,
  removeStaleFiles,
  syncDirectory,
  type ObjectStoreStats,
} from './repository-files.js';
import { pruneUnreachable, recordTips, RECORDS, removeStaleViews } from './retention.js';
import {
  mayHaveBeenKilled,
  runMaintenanceGit,
  runRepack,
  writeCommitGraph,
  type MaintenanceContext,
} from './run-maintenance-git.js';

export interface MaintainOptions extends MaintenanceContext {
  readonly clock: Clock;
  /** By it is told what is old enough to go; see `evenTime`. Default: the clock's time on the wall. */
  readonly evenNowMs?: () => number;
  /**
   * Runs a step while no ref transaction of ours runs in this repository: `git pack-refs` takes the lock of
   * packed-refs, on which a transaction would fail.
   */
  readonly holdRefs: (step: () => Promise<void>) => Promise<void>;
  /**
   * Runs a step while no push is between its judgement and its refs: what it found in the store may not go. Resolves
   * with false when there is such a push, or when one came and ended the step by its signal; the next run prunes.
   */
  readonly holdJudging: (step: (ended: AbortSignal) => Promise<void>) => Promise<boolean>;
  /** Runs the repack, so that the caller can tell what it made. Default: just runs it. */
  readonly aroundRepack?: (
    kind: 'geometric' | 'full',
    repack: () => Promise<void>,
  ) => Promise<void>;
  /** Default: the most thorough one that does not take long, for who asks for maintenance. */
  readonly kind?: 'geometric' | 'full';
  /** Objects that may not go, nor what they reach: tips of pinned generations and of prepared pushes. */
  readonly pinned: readonly Oid[];
  /** Packs, by file name, that stay as they are. Then nothing is pruned either. */
  readonly keepPacks?: readonly string[];
  /** How long an object has to be unreachable before it goes. Default: two weeks. */
  readonly graceMs?: number;
  readonly progress?: (progress: MaintenanceProgress) => void;
}

/** What the policy asks for: nothing, rolling small packs up, or one new pack of everything. */
export type MaintenanceNeed = 'none' | 'geometric' | 'full';

/**
 * Beside a pack with a bitmap small ones are cheap: 60 of them make a clone cost a fifth more. (13 packs without one
 * cost 15 to 20 times as much.) Rolling 20 up costs as little as two pushes.
 */
const MAX_PACKS = 20;
/** Who borrows objects has no bitmap of its own, and its packs are looked into besides those of the lender. */
const MAX_BORROWER_PACKS = 5;
const MAX_LOOSE_OBJECTS = 500;
/**
 * Every fetch that needs a git reads each of them, and removing or moving one costs a file each time, where packed refs
 * cost one file in all.
 */
export const MAX_LOOSE_REFS = 500;
/** Below this a clone is quick without a bitmap. */
const MIN_BITMAP_BYTES = 1024 ** 2;
/** One pack of everything serves clones best, and making it of this much takes seconds. */
const CHEAP_FULL_BYTES = 256 * 1024 ** 2;
/**
 * What no bitmap covers is walked by every clone. Packing everything anew costs a sixth of the CPU of having it pushed;
 * each time that it has grown by a quarter, so that per byte pushed it stays below the push itself.
 */
const MAX_UNCOVERED = { cheap: 1 / 4, large: 1 / 2, bytes: 1024 ** 2 };
/** A clone of everything from the stored pack saves nine tenths of its CPU; after so many, a full repack has paid. */
export const MISSED_CLONES = 5;

const DAY_MS = 86_400_000;
const GRACE_MS = 14 * DAY_MS;

/**
 * The policy for what is done unasked. Pure. Packs under `.keep` belong to pushes that are being applied and do not
 * count. Who borrows objects cannot have a bitmap of its own, which would have to cover all that its commits reach.
 * `missedClones` counts clones of everything, of the present generation, for which there was no stored pack.
 */
export function needsMaintenance(stats: ObjectStoreStats, missedClones = 0): MaintenanceNeed {
  const packs = stats.packCount - stats.keptPackCount;
  const manyLoose = stats.looseObjectCount > MAX_LOOSE_OBJECTS;
  if (stats.borrows) return packs > MAX_BORROWER_PACKS || manyLoose ? 'full' : 'none';
  if (packs > 0 && !stats.hasBitmap && stats.sizeBytes > MIN_BITMAP_BYTES) return 'full';
  if (isOutgrown(stats)) return 'full';
  const cheap = stats.sizeBytes <= CHEAP_FULL_BYTES;
  if (packs > 0 && cheap && missedClones >= MISSED_CLONES) return 'full';
  if (packs <= MAX_PACKS && !manyLoose) return 'none';
  return stats.sizeBytes <= MIN_BITMAP_BYTES ? 'full' : 'geometric';
}

/** The packs beside the largest one, which has the bitmap, have become too much. */
function isOutgrown({ packBytes, largestPackBytes, sizeBytes }: ObjectStoreStats): boolean {
  const share = sizeBytes <= CHEAP_FULL_BYTES ? MAX_UNCOVERED.cheap : MAX_UNCOVERED.large;
  const uncovered = packBytes - largestPackBytes;
  return uncovered > Math.max(MAX_UNCOVERED.bytes, largestPackBytes * share);
}

/**
 * For who asks: full when it is cheap, when there is no large pack that a geometric repack would spare anyway, and for the first
 * bitmap (made with a pack of its own it also serves verbatim reuse). Else geometric, whose cost follows the pushes.
 * Always full for who borrows objects: a geometric repack by git 2.39 would take the lender's packs for its own.
 */
function repackKind(stats: ObjectStoreStats): 'geometric' | 'full' {
  if (stats.borrows) return 'full';
  const cheap = stats.sizeBytes <= CHEAP_FULL_BYTES;
  const noLargePack = stats.largestPackBytes * 2 < stats.sizeBytes;
  return cheap || noLargePack || !stats.hasBitmap ? 'full' : 'geometric';
}

/**
 * Packs refs, repacks objects, prunes what has been unreachable for the grace period, and writes the commit graph.
 * The caller runs one at a time for a repository. Pushes and fetches may go on beside it:
 * - a pack that is promoted meanwhile is not among those that git listed at its start, or is under `.keep`, and is
 *   neither repacked nor removed;
 * - what is not reachable goes into a cruft pack and stays, but for the prune step (see `retention.ts`);
 * - a fetch keeps open packs open, and looks again for those that are gone.
 * Interrupted anywhere, it leaves a sound repository and temporary files, which a later run removes.
 */
export async function maintainRepository(options: MaintainOptions): Promise<MaintenanceReport> {
  const { clock, gitDir, progress, evenNowMs = () => clock.nowMs() } = options;
  const objectsDir = join(gitDir, 'objects');
  const startedMs = clock.monotonicMs();
  const before = await readObjectStoreStats(objectsDir);
  const graceMs = options.graceMs ?? GRACE_MS;
  const { keepPacks = [] } = options;
  const steps: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['clean', () => removeLeftovers(gitDir, { nowMs: evenNowMs(), olderThanMs: DAY_MS })],
    ['refs', () => options.holdRefs(() => packRefs(options))],
    ['tips', () => recordTips(options, { nowMs: clock.nowMs(), graceMs })],
    [
      'objects',
      () => {
        // It may have begun to borrow since the caller looked.
        const kind = before.borrows ? 'full' : (options.kind ?? repackKind(before));
        const { borrows } = before;
        const repack = (): Promise<void> => repackObjects(options, kind, { borrows, keepPacks });
        return options.aroundRepack === undefined ? repack() : options.aroundRepack(kind, repack);
      },
    ],
    ['graph', () => writeCommitGraph(options, 'added')],
    [
      'prune',
      async () => keepPacks.length > 0 || (await prune(options, { nowMs: evenNowMs, graceMs })),
    ],
  ];
  for (const [done, [step, run]] of steps.entries()) {
    progress?.({ step, done, total: steps.length });
    await run();
  }
  progress?.({ step: 'done', done: steps.length, total: steps.length });
  const after = await readObjectStoreStats(objectsDir);
  return {
    packsBefore: before.packCount + before.cruftPackCount,
    packsAfter: after.packCount + after.cruftPackCount,
    sizeBytesBefore: before.sizeBytes,
    sizeBytesAfter: after.sizeBytes,
    durationMs: clock.monotonicMs() - startedMs,
  };
}

function prune(
  options: MaintainOptions,
  { nowMs, graceMs }: { readonly nowMs: () => number; readonly graceMs: number },
): Promise<boolean> {
  const { pinned } = options;
  return options.holdJudging(async (ended) => {
    const signal = AbortSignal.any([options.signal, ended]);
    await pruneUnreachable({ ...options, signal }, { nowMs: nowMs(), graceMs, pinned });
  });
}

/**
 * Moves loose refs into packed-refs. The caller lets no ref transaction run meanwhile. Loose refs go when packed-refs
 * is on disk under its name, which git does not see to: a power cut could leave the old packed-refs, and no loose ones.
 */
export async function packRefs(context: MaintenanceContext): Promise<void> {
  const config = { 'core.packedRefsTimeout': '30000' };
  try {
    await runMaintenanceGit(context, { args: ['pack-refs', '--all', '--no-prune'], config });
    await syncDirectory(context.gitDir);
    // Packs the same values again.
    await runMaintenanceGit(context, { args: ['pack-refs', '--all', '--prune'], config });
  } catch (error) {
    // Its locks would be in the way of all that comes, and nobody else has any now.
    if (mayHaveBeenKilled(error)) await removeLocksOfPacking(context.gitDir);
    throw error;
  }
}

/**
 * Repacks and removes only what a new pack holds. Geometric: rolls packs and loose objects up, reachable or not, and
 * leaves the large pack and its bitmap as they are. Full: one pack of what refs reach, with a bitmap, and a cruft pack of the rest.
 * Never `-a -d` without `--cruft`: that would drop a promoted pack whose refs are not written yet. What is borrowed is
 * left where it is (`-l`), and what the lender has as well goes; what is missing there then has no bitmap.
 */
export async function repackObjects(
  context: MaintenanceContext,
  kind: 'geometric' | 'full',
  more: { readonly borrows?: boolean; readonly keepPacks?: readonly string[] } = {},
): Promise<void> {
  const { borrows = false, keepPacks = [] } = more;
  const whole = borrows ? ['-l', '--no-write-bitmap-index'] : ['--write-bitmap-index'];
  const args =
    kind === 'geometric'
      ? ['--geometric=2']
      : ['-a', '--cruft', '--cruft-expiration=never', ...whole];
  args.push(...keepPacks.map((name) => `--keep-pack=${name}`));
  await runRepack(context, args);
}

const temporaryPackFile = /^(?:\.?tmp[-_].*|multi-pack-index\.lock)$/;
const temporaryGraphFile = /^(?:tmp_.*|.*\.lock)$/;

/**
 * Removes what killed maintenance left beside packs, commit graphs and records, and brings back the packs that a repack
 * removed whose outcome may not have come to the disk. At recovery only, when nothing runs.
 */
export async function removeAllLeftovers(gitDir: string): Promise<void> {
  await restoreKept(join(gitDir, 'objects'));
  await removeLeftovers(gitDir, { nowMs: Infinity, olderThanMs: 0 });
  await removeHalfWritten(join(gitDir, RECORDS));
  await removeHalfWritten(join(gitDir, 'objects', 'info'));
}

/** Removes what killed gits left beside packs and commit graphs. Younger files may belong to a running one. */
export async function removeLeftovers(
  gitDir: string,
  options: { readonly nowMs: number; readonly olderThanMs: number },
): Promise<number> {
  const objectsDir = join(gitDir, 'objects');
  const packs = join(objectsDir, 'pack');
  const graphs = join(objectsDir, 'info', 'commit-graphs');
  await removeStaleViews(gitDir, options);
  return (
    (await removeStaleFiles(packs, (name) => temporaryPackFile.test(name), options)) +
    (await removeStaleFiles(graphs, (name) => temporaryGraphFile.test(name), options))
  );
}
