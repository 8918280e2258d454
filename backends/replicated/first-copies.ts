import type { Logger } from '../contract/environment.js';
import type { Replica } from '../contract/replica.js';
import { majorityOf } from './quorum.js';
import type { RepositoryRecord, Voter } from './records.js';
import { nobodyReachable, type ReplicaDirectory } from './voters.js';

/** Makes the files of a new repository. The voters that have them: a majority of those placed, at least. */
export async function makeFirstCopies(
  { replicas, logger }: { readonly replicas: ReplicaDirectory; readonly logger: Logger },
  { id, voters }: RepositoryRecord,
  options: Parameters<Replica['create']>[1],
): Promise<Voter[]> {
  const made = await Promise.allSettled(
    voters.map(async ({ storeId }) => {
      const replica = replicas.find(storeId);
      if (replica === undefined) throw nobodyReachable(replicas, voters);
      await replica.create(id, options);
    }),
  );
  const failed = made.find((one) => one.status === 'rejected');
  const created = voters.filter((_, index) => made[index]?.status === 'fulfilled');
  if (failed === undefined) return voters;
  if (created.length < majorityOf(voters)) throw failed.reason;
  logger.warn(
    { component: 'registry', repo: id, err: failed.reason },
    'a repository starts with fewer stores than wanted',
  );
  return created;
}
