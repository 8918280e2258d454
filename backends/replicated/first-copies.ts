import type { Clock, Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { Replica } from '../contract/replica.js';
import { majorityOf } from './quorum.js';
import type { RepositoryRecord, Voter } from './records.js';
import { nobodyReachable, type ReplicaDirectory } from './voters.js';

/** Once a majority has its copy, the others get so long: a disk that hangs keeps nobody's repository. */
const othersMs = 5_000;

export interface FirstCopiesDependencies {
  readonly replicas: ReplicaDirectory;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Makes the files of a new repository. The voters that have them: a majority of those placed, at least. */
export function makeFirstCopies(
  dependencies: FirstCopiesDependencies,
  record: RepositoryRecord,
  options: Parameters<Replica['create']>[1],
): Promise<Voter[]> {
  return makeCopies(dependencies, record, (replica) => replica.create(record.id, options));
}

/**
 * Has each voter make its copy. Those that have: a majority at least, or it fails as the first did that has not. Who is
 * late may have it in the end, and is told by whoever makes the repository without him that it is to go.
 */
export async function makeCopies(
  { replicas, clock, logger }: FirstCopiesDependencies,
  { id, voters }: Pick<RepositoryRecord, 'id' | 'voters'>,
  make: (replica: Replica) => Promise<void>,
): Promise<Voter[]> {
  const made = new Set<string>();
  const errors: unknown[] = [];
  const over = new AbortController();
  const majority = new AbortController();
  const each = voters.map(async ({ storeId }) => {
    try {
      const replica = replicas.find(storeId);
      if (replica === undefined) throw nobodyReachable(replicas, voters);
      await make(replica);
      made.add(storeId);
      if (made.size >= majorityOf(voters)) majority.abort('reached');
    } catch (error) {
      errors.push(error);
    }
  });
  const late = new Promise<void>((resolve) => {
    majority.signal.addEventListener('abort', () => resolve(), { once: true });
  }).then(() => clock.sleep(othersMs, over.signal));
  await Promise.race([Promise.all(each), late]);
  over.abort('over');
  const created = voters.filter(({ storeId }) => made.has(storeId));
  if (created.length === voters.length) return voters;
  const failed = errors[0] ?? new QuorateError('deadline-exceeded', 'a store made no copy in time');
  if (created.length < majorityOf(voters)) throw failed;
  logger.warn(
    { component: 'registry', repo: id, err: failed },
    'a repository starts with fewer stores than wanted',
  );
  return created;
}
