import { asQuorateError, type QuorateError } from '../contract/errors.js';
import type { RefCommand } from '../contract/objects.js';
import type { QuarantineKey } from '../contract/replica.js';
import { type Consistency, quorumMissing, suffices } from './quorum.js';
import { encodeRecord, type RepositoryRecord } from './records.js';
import { noAnswer, nothingToWaitFor, type Patient } from './stuck.js';
import type { Member } from './voters.js';

const usualInlineUpdatesBytes = 256 * 1024;

/** How large an entry of the log may be. */
export interface InlineLimit {
  /** Updates whose JSON form is larger stay with the voters, and the log carries their digest. Absent: 256 KiB. */
  readonly maxInlineUpdatesBytes?: number | undefined;
}

/** A store that keeps such updates later than the others, which are enough, by so much is left out: its disk hangs, perhaps. */
const keepPatienceMs = 3_000;
/** So long a push waits, with its locks, for enough stores to keep them. They are some ten megabytes. */
export const keepLimitMs = 120_000;

/**
 * An entry too large for the log is kept by the stores; one that cannot keep it counts no more, nor one that is late.
 * Nothing is committed yet: what fails here has changed nothing.
 */
export async function inlineOrStored(
  key: QuarantineKey,
  updates: readonly RefCommand[],
  members: readonly Member[],
  counted: InlineLimit & {
    readonly consistency: Consistency;
    readonly voters: RepositoryRecord['voters'];
    /** Absent: each is waited for. */
    readonly patient?: Patient;
  },
): Promise<{
  readonly members: readonly Member[];
  readonly inline: { updates: readonly RefCommand[]; updatesDigest?: string };
}> {
  const { maxInlineUpdatesBytes: maxBytes = usualInlineUpdatesBytes } = counted;
  if (encodeRecord(updates).length <= maxBytes) return { members, inline: { updates } };
  const { digests, errors, unanswered } = await storedBy(key, updates, members, counted);
  const [first] = digests.values();
  const keeping = members.filter(({ storeId }) => {
    return first !== undefined && digests.get(storeId) === first;
  });
  const stores = new Set(keeping.map(({ storeId }) => storeId));
  if (first !== undefined && suffices(counted.consistency, counted.voters, stores)) {
    return { members: keeping, inline: { updates: [], updatesDigest: first } };
  }
  const [only] = errors.values();
  if (only !== undefined && counted.voters.length === 1) throw only;
  const troubles = new Map([...errors, ...unanswered]);
  throw quorumMissing(counted.consistency, counted.voters, stores, troubles);
}

/** What each store that kept the updates says of them. */
async function storedBy(
  key: QuarantineKey,
  updates: readonly RefCommand[],
  members: readonly Member[],
  { consistency, voters, patient }: Parameters<typeof inlineOrStored>[3],
): Promise<{
  readonly digests: ReadonlyMap<string, string>;
  readonly errors: ReadonlyMap<string, QuorateError>;
  /** What there is to say of those that said nothing. */
  readonly unanswered: ReadonlyMap<string, QuorateError>;
}> {
  const digests = new Map<string, string>();
  const errors = new Map<string, QuorateError>();
  const open = (): readonly Member[] =>
    members.filter(({ storeId }) => !digests.has(storeId) && !errors.has(storeId));
  const over = new AbortController();
  const enough = new Promise<void>((resolve) => {
    const storing = members.map(async ({ storeId, replica }) => {
      try {
        digests.set(storeId, await replica.storeUpdates(key, updates));
        if (suffices(consistency, voters, new Set(digests.keys()))) resolve();
      } catch (error) {
        errors.set(storeId, asQuorateError(error));
      }
    });
    void Promise.all(storing).then(() => over.abort('over'));
  });
  const ended = new Promise<void>((resolve) => {
    over.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const unanswered = new Map<string, QuorateError>();
  if (patient === undefined) await ended;
  else {
    const others = enough.then(() => patient.clock.sleep(keepPatienceMs, over.signal));
    await Promise.race([ended, others, nothingToWaitFor(open, patient, over.signal)]);
    over.abort('over');
    for (const { storeId } of open()) unanswered.set(storeId, noAnswer(patient.replicas, storeId));
  }
  return { digests: new Map(digests), errors: new Map(errors), unanswered };
}
