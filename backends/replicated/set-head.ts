import type { Random } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import type { LogReader } from '../contract/replica.js';
import { isBranchName } from '../git/ref-files.js';
import { commitChange, type CommitDependencies } from './commit.js';
import type { PushDependencies } from './push.js';
import { abortUpload } from './push-upload.js';
import { configuredConsistency, type Consistency } from './quorum.js';
import type { RepositoryRecord } from './records.js';
import { primaryOf, reachable, type ReplicaDirectory } from './voters.js';

export interface SetHeadDependencies {
  readonly commit: CommitDependencies;
  readonly log: LogReader;
  readonly replicas: ReplicaDirectory;
  /** Keeps the outbox from what was committed until this is told so. */
  readonly attend: PushDependencies['attend'];
  readonly random: Random;
  /** Of repositories that say nothing else. */
  readonly consistency: Consistency;
}

/** Makes HEAD name a branch, as a log entry of its own. Does nothing when it does already. */
export async function setHead(
  { commit, log, replicas, attend, random, consistency }: SetHeadDependencies,
  { id, voters }: RepositoryRecord,
  { branch, by }: { readonly branch: string; readonly by: string },
): Promise<void> {
  // Before the commit point: an entry that no store can apply would stop the repository for good.
  if (!isBranchName(branch)) {
    throw new QuorateError('invalid-argument', 'HEAD names a branch: refs/heads/...');
  }
  const { generation } = await log.head(id);
  const read = await primaryOf(replicas, voters).read(id, generation);
  const { head } = read.snapshot;
  read.release();
  if ('symref' in head && head.symref === branch) return;
  const key = {
    repositoryId: id,
    pushId: `head-${Buffer.from(random.bytes(12)).toString('hex')}`,
    attempt: 1,
  };
  const attendance = attend(key.pushId, () => undefined);
  try {
    await commitChange(commit, {
      key,
      actor: by,
      commands: [],
      head: { old: head, new: { symref: branch } },
      shallow: [],
      consistency: ({ settings }) => configuredConsistency(settings) ?? consistency,
      signal: new AbortController().signal,
      judge: () => Promise.resolve([]),
    });
  } catch (error) {
    if (asQuorateError(error).code !== 'outcome-unknown') {
      await abortUpload(commit, key, reachable(replicas, voters));
    }
    throw error;
  } finally {
    attendance.leave();
  }
}
