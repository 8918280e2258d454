import { matchesGlob } from '../contract/glob.js';
import type { Inspection, PushFact } from '../contract/inspection.js';
import type { Oid } from '../contract/objects.js';
import type { GitRunner } from '../git/git-runner.js';
import { inspectHistory } from '../git/inspect-history.js';
import { isZero } from './judge-names.js';
import { objectSources } from './judge.js';
import type { OpenRepository } from './open-repository.js';

/** Answers a question about a push that was prepared here, from its quarantine and the applied refs. */
export async function* inspectPrepared(
  git: GitRunner,
  repository: OpenRepository,
  quarantineDirectory: string,
  inspection: Inspection,
): AsyncGenerator<PushFact> {
  const sources = await objectSources(repository, quarantineDirectory);
  yield* inspectHistory({
    ...sources,
    git,
    tip: inspection.command.newOid,
    known: judgedTips(repository, inspection),
    commits: inspection.commits,
    files: inspection.files,
    ...(inspection.signers === undefined
      ? {}
      : { signers: inspection.signers, scratchParent: quarantineDirectory }),
    signal: inspection.signal,
  });
}

function judgedTips(repository: OpenRepository, inspection: Inspection): readonly Oid[] {
  const { command, covered, judged } = inspection;
  if (!isZero(command.oldOid)) return [command.oldOid, ...judged];
  const tips = repository.snapshot.refs.filter(({ name }) => matchesGlob(covered, name));
  return [...new Set([...tips.map(({ oid }) => oid), ...judged])];
}
