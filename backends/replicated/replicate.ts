import type { Clock, Logger } from '../contract/environment.js';
import { asQuorateError } from '../contract/errors.js';
import type { LogReader } from '../contract/replica.js';
import { inTime } from './held-copies.js';
import type { Applied } from './outbox.js';
import { type PushTrace, untraced } from './push-trace.js';
import type { RepositoryRecord, Voter } from './records.js';
import { hangingStores } from './stuck.js';
import { nobodyReachable, type ReplicaDirectory } from './voters.js';

export interface ReplicateDependencies {
  readonly replicas: ReplicaDirectory;
  readonly logger: Logger;
}

/**
 * Makes every voter apply a committed generation, those that are stale left out. Resolves with the first that has
 * (`done` has already); rejects when none could.
 */
export async function applyEverywhere(
  { replicas, logger }: ReplicateDependencies,
  { id, voters, readers = [] }: RepositoryRecord,
  {
    generation,
    done,
    trace = untraced,
  }: {
    readonly generation: number;
    readonly done?: string | undefined;
    readonly trace?: PushTrace | undefined;
  },
): Promise<Applied> {
  const applying = voters
    .filter(({ state }) => state !== 'stale')
    .map(async ({ nodeId, storeId }) => {
      if (storeId === done) return storeId;
      const replica = replicas.find(storeId);
      if (replica === undefined) throw nobodyReachable(replicas, voters);
      await replica.apply(id, generation);
      trace.note('applied', { nodeId });
      return storeId;
    });
  const everywhere = Promise.allSettled(applying).then((all) => {
    for (const one of all) {
      if (one.status === 'fulfilled') continue;
      logger.debug(
        { component: 'replicate', repo: id, generation, err: asQuorateError(one.reason) },
        'a voter has not applied an entry yet',
      );
    }
    return all.every(({ status }) => status === 'fulfilled');
  });
  try {
    const first = await Promise.any(applying);
    keepCurrent({ replicas, logger }, readers, { id, generation });
    return { storeId: first, everywhere };
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error;
  }
}

/** So much running at a reader from here is enough to have it catch up. */
const busyReader = 64;

/** Has readers take what they lack from a voter. Nobody waits for it: a read that needs it would ask for it, too. */
function keepCurrent(
  { replicas, logger }: ReplicateDependencies,
  readers: readonly Voter[],
  { id, generation }: { readonly id: string; readonly generation: number },
): void {
  for (const { storeId, state } of readers) {
    const replica = state === 'stale' ? undefined : replicas.find(storeId);
    if (replica === undefined || replicas.load(storeId) >= busyReader) continue;
    replica.apply(id, generation).catch((error: unknown) => {
      logger.debug(
        { component: 'replicate', repo: id, generation, err: asQuorateError(error) },
        'a reader has not got a push yet',
      );
    });
  }
}

/** How far the voters of a repository are. */
export interface Progress {
  /** The committed generation. */
  readonly head: number;
  /** The generation that every counting voter has applied durably; undefined: unknown now. */
  readonly applied: number | undefined;
}

/** For each answer: a disk that hangs keeps nothing else from being trimmed for long. */
const answerTimeoutMs = 10_000;

/**
 * What every voter has, after making them apply the head; unknown when one does not answer in time, or says that its disk
 * hangs: of a thousand repositories that it has each would wait. Learners take what they lack
 * from a peer and need no log; stale voters return in the same way.
 */
export async function appliedEverywhere(
  {
    replicas,
    log,
    clock,
    readRecord,
  }: Pick<ReplicateDependencies, 'replicas'> & {
    readonly log: Pick<LogReader, 'head'>;
    readonly clock: Pick<Clock, 'sleep'>;
    readonly readRecord: (id: string) => Promise<RepositoryRecord | undefined>;
  },
  id: string,
): Promise<Progress> {
  const record = await readRecord(id);
  // Its keys go with it.
  const all = Number.MAX_SAFE_INTEGER;
  if (record === undefined) return { head: all, applied: all };
  const { generation } = await log.head(id);
  const over = new AbortController();
  const late = clock.sleep(answerTimeoutMs, over.signal);
  const hanging = hangingStores(replicas);
  const applied = await Promise.all(
    record.voters
      .filter(({ state }) => state !== 'stale')
      .map(async ({ storeId }) => {
        const replica = replicas.find(storeId);
        if (replica === undefined || hanging.has(storeId)) return undefined;
        try {
          await inTime(replica.apply(id, generation), late);
          return generation;
        } catch {
          return inTime(replica.applied(id), late).catch(() => undefined);
        }
      }),
  );
  over.abort('over');
  const known = applied.filter((one) => one !== undefined);
  const isKnown = known.length === applied.length;
  return { head: generation, applied: isKnown ? Math.min(...known) : undefined };
}
