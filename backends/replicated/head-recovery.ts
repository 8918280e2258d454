import type { Coordinator } from '../contract/coordinator.js';
import { QuorateError, refuseCancelled } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type {
  CopyFound,
  HeadFound,
  HeadRecovery,
  HeadsCompared,
  HeadVerdict,
} from '../contract/recovery.js';
import type { ReplicaState } from '../contract/replica.js';
import type { HeadRecord } from '../contract/repository.js';
import { goneForGood } from './gone-stores.js';
import { readNodeMarks } from './node-marks.js';
import { majorityOf } from './quorum.js';
import {
  copiesOf,
  decodeHead,
  decodeRepository,
  encodeRecord,
  type RepositoryRecord,
  scan,
} from './records.js';
import type { ReplicaDirectory } from './voters.js';

/** A voter's answer: what it holds, nothing, or none; or none for ever. */
type Answer = ReplicaState | 'nothing' | 'silent' | 'gone';

interface Judged extends HeadFound {
  readonly head: HeadRecord | undefined;
  /** Of the highest generation. */
  readonly digest: string;
}

export interface HeadRecoveryDependencies {
  /** One that refuses nothing while commits are frozen. */
  readonly coordinator: Coordinator;
  readonly replicas: ReplicaDirectory;
}

/** Heads against disks; see `HeadRecovery`. */
export function createHeadRecovery(dependencies: HeadRecoveryDependencies): HeadRecovery {
  const { coordinator } = dependencies;
  return {
    async compare(signal): Promise<HeadsCompared> {
      const found: HeadFound[] = [];
      let compared = 0;
      for await (const entry of scan(coordinator, keys.repos)) {
        refuseCancelled(signal);
        const record = decodeRepository(entry);
        if (record.state !== 'active') continue;
        compared += 1;
        const judged = await judge(dependencies, record);
        if (judged === undefined) continue;
        const { head: _head, digest: _digest, ...shown } = judged;
        found.push(shown);
      }
      return { compared, found };
    },

    async raise({ repositoryId, generation }): Promise<void> {
      const entry = await coordinator.get(keys.repo(repositoryId));
      if (entry === undefined) throw changed();
      const now = await judge(dependencies, decodeRepository(entry));
      if (now?.verdict !== 'behind' || now.generation !== generation) throw changed();
      const { digest, head } = now;
      const headKey = keys.head(repositoryId);
      const { succeeded } = await coordinator.transaction({
        compares: [
          { key: entry.key, target: 'modRevision', op: '=', operand: entry.modRevision },
          head === undefined
            ? { key: headKey, target: 'createRevision', op: '=', operand: 0 }
            : { key: headKey, target: 'value', op: '=', operand: encodeRecord(head) },
        ],
        success: [
          { type: 'put', key: headKey, value: encodeRecord({ generation, digest }) },
          // Under a new revision: pushes that were judged by the head that was behind, and hold locks on refs which have
          // moved since, are judged again.
          { type: 'put', key: entry.key, value: entry.value },
        ],
        failure: [],
      });
      if (!succeeded) throw changed();
    },
  };
}

function changed(): QuorateError {
  return new QuorateError('aborted', 'a repository changed while it was recovered: try again');
}

/** Undefined when the disks hold what the head says, or less, which the log makes good. */
async function judge(
  { coordinator, replicas }: HeadRecoveryDependencies,
  record: RepositoryRecord,
): Promise<Judged | undefined> {
  const entry = await coordinator.get(keys.head(record.id));
  const head = entry === undefined ? undefined : decodeHead(entry);
  // Learners and readers hold nothing but what was committed; whoever has the most tells how far that was.
  const asked = copiesOf(record);
  const marks = await readNodeMarks(coordinator);
  const answers = await Promise.all(
    asked.map(async (copy): Promise<Answer> => {
      const replica = replicas.find(copy.storeId);
      if (replica === undefined) {
        return goneForGood(copy, replicas.nodes(), marks) === undefined ? 'silent' : 'gone';
      }
      try {
        return (await replica.state(record.id)) ?? 'nothing';
      } catch {
        return 'silent';
      }
    }),
  );
  const stores = asked.map(({ storeId }) => storeId);
  const states = answers.filter((answer) => typeof answer !== 'string');
  const headGeneration = head?.generation ?? 0;
  const generation = Math.max(0, ...states.map((state) => state.generation));
  // What was acknowledged is on a majority of the voters: one that answers has it, whatever is on those that are gone.
  const isHeld = (storeId: string) => typeof answers[stores.indexOf(storeId)] === 'object';
  const voting = record.voters.filter(({ storeId }) => isHeld(storeId)).length;
  const isEnough = voting >= majorityOf(record.voters);
  const isSilent = (answer: Answer | undefined) =>
    answer === 'silent' || (answer === 'gone' && !isEnough);
  const isComplete = !answers.some(isSilent);
  const verdict = verdictOf({ isComplete, states, head, generation });
  if (verdict === undefined) return undefined;
  const copies = asked.map(({ nodeId, storeId }, i): CopyFound => {
    const answer = answers[i];
    const known = typeof answer === 'object' ? answer.generation : undefined;
    return { nodeId, storeId, generation: known, silent: isSilent(answer) };
  });
  const best = states.find((state) => state.generation === generation);
  return {
    repositoryId: record.id,
    name: record.name,
    verdict,
    headGeneration,
    generation,
    copies,
    head,
    digest: best?.digest ?? '',
  };
}

function verdictOf({
  isComplete,
  states,
  head,
  generation,
}: {
  /** Nobody is silent who might hold more. */
  readonly isComplete: boolean;
  readonly states: readonly ReplicaState[];
  readonly head: HeadRecord | undefined;
  readonly generation: number;
}): HeadVerdict | undefined {
  const digests = new Map<number, string>();
  if (head !== undefined) digests.set(head.generation, head.digest);
  for (const state of states) {
    const known = digests.get(state.generation);
    if (known !== undefined && known !== state.digest) return 'split';
    digests.set(state.generation, state.digest);
  }
  if (!isComplete) return 'unreachable';
  if (states.length === 0) return 'missing';
  return generation > (head?.generation ?? 0) ? 'behind' : undefined;
}
