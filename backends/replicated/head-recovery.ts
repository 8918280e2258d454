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
import {
  copiesOf,
  decodeHead,
  decodeRepository,
  encodeRecord,
  type RepositoryRecord,
  scan,
} from './records.js';
import type { ReplicaDirectory } from './voters.js';

/** A voter's answer: what it holds, nothing, or none. */
type Answer = ReplicaState | 'nothing' | 'silent';

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
  const answers = await Promise.all(
    asked.map(async ({ storeId }): Promise<Answer> => {
      const replica = replicas.find(storeId);
      if (replica === undefined) return 'silent';
      try {
        return (await replica.state(record.id)) ?? 'nothing';
      } catch {
        return 'silent';
      }
    }),
  );
  const states = answers.filter((answer) => typeof answer !== 'string');
  const headGeneration = head?.generation ?? 0;
  const generation = Math.max(0, ...states.map((state) => state.generation));
  const verdict = verdictOf({ answers, states, head, generation });
  if (verdict === undefined) return undefined;
  const copies = asked.map(({ nodeId, storeId }, i): CopyFound => {
    const answer = answers[i];
    const known = typeof answer === 'object' ? answer.generation : undefined;
    return { nodeId, storeId, generation: known };
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
  answers,
  states,
  head,
  generation,
}: {
  readonly answers: readonly Answer[];
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
  if (answers.includes('silent')) return 'unreachable';
  if (states.length === 0) return 'missing';
  return generation > (head?.generation ?? 0) ? 'behind' : undefined;
}
