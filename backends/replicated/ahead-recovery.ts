import type { LossCopy, LossRecovery, LossReport } from '../contract/cluster.js';
import { QuorateError } from '../contract/errors.js';
import {
  type HeadRecoveryDependencies,
  type Judged,
  judgeOne,
  type OneJudged,
  raiseJudged,
} from './head-recovery.js';
import type { Loss } from './set-loss.js';
import type { SetGround } from './set-view.js';

/**
 * A recovery where a copy is ahead of the coordinator, which is an older copy of itself, and the majority of the voters
 * is gone for good. `quorate recover` chooses nothing there, since what is left may lack pushes that were acknowledged.
 * Whoever has the latest of what is left goes on, named by the record or not: the head is raised to that. Nothing that
 * the coordinator knows of is overruled by it; what it does not know of and nobody has is lost without a trace.
 */
export async function recoverAhead(
  dependencies: HeadRecoveryDependencies,
  { ground, loss }: { readonly ground: SetGround; readonly loss: Loss },
  { accept, gone, signal }: LossRecovery,
): Promise<LossReport> {
  const { record, head } = ground;
  const found = await judgeOne(dependencies, record.id, { gone, signal });
  const { judged } = found;
  const left = judged?.answers.filter(({ answer }) => isLeft(answer, judged)) ?? [];
  const [survivor] = left;
  const refusal = refusalOf(found, loss);
  const report = {
    generation: head.generation,
    copies: judged === undefined ? loss.copies : copiesIn(loss, judged),
    survivor:
      judged === undefined || survivor === undefined
        ? undefined
        : { nodeId: survivor.nodeId, generation: judged.generation },
    overruled: [],
    refusal,
  };
  if (accept === undefined) return { ...report, recovered: undefined };
  if (refusal !== undefined) throw new QuorateError('failed-precondition', refusal);
  if (judged === undefined || accept !== judged.generation) {
    throw new QuorateError(
      'failed-precondition',
      `it would go on from generation ${judged?.generation ?? 0}, not ${accept}: look at the report again`,
    );
  }
  await raiseJudged(dependencies, found.entry, judged);
  const voters = left.map(({ nodeId }) => nodeId);
  dependencies.logger.warn(
    { component: 'recovery', repo: record.id, generation: judged.generation, voters },
    'a repository goes on from copies that were left, ahead of an older copy of the coordinator',
  );
  return { ...report, recovered: judged.generation };
}

function isLeft(
  answer: Judged['answers'][number]['answer'],
  { generation, digest }: Judged,
): boolean {
  if (typeof answer !== 'object' || answer.unread !== undefined) return false;
  return answer.generation === generation && answer.digest === digest;
}

/** What was found now, of those that the record names and of others. */
function copiesIn({ copies }: Loss, judged: Judged): readonly LossCopy[] {
  const answerOf = (storeId: string) => judged.answers.find((one) => one.storeId === storeId);
  const named = copies.map((copy): LossCopy => {
    const { answer = 'nothing' } = answerOf(copy.storeId) ?? {};
    return { ...copy, usable: isLeft(answer, judged) };
  });
  const others = judged.answers.flatMap(
    ({ nodeId, storeId, named: isNamed, answer }): LossCopy[] => {
      if (isNamed || typeof answer !== 'object') return [];
      const { generation, digest, frozen } = answer;
      const usable = isLeft(answer, judged);
      const state = { generation, digest, frozen, usable, gone: undefined };
      return [{ nodeId, storeId, role: 'unnamed', alive: true, ...state }];
    },
  );
  return [...named, ...others];
}

function refusalOf({ judged, unheard }: OneJudged, { copies }: Loss): string | undefined {
  if (unheard.length > 0) {
    return `${unheard.join(', ')} might have the latest, and does not say what it holds: start what is stopped there, or mend it, or say that it is gone for good (quorate node remove)`;
  }
  if (judged?.verdict === 'majority-lost') return undefined;
  if (judged?.verdict === 'split') {
    return 'its copies differ at one generation, since something else was pushed to an older copy of the coordinator: nobody can choose between them; set one aside on its disk';
  }
  if (judged?.verdict === 'unreachable') {
    const names = judged.copies.filter(({ silent }) => silent).map(({ nodeId }) => nodeId);
    return `${names.join(', ')} may come back, and might have the latest: start what can be started, or say that it is gone for good (--gone ${names.join(',')}, or quorate node remove)`;
  }
  const ahead = copies.find(({ generation = 0 }) => generation === judged?.generation);
  return `${ahead?.nodeId ?? 'a copy'} is ahead of the coordinator, which seems to be an old copy: quorate recover is for that`;
}
