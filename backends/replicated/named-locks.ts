import type { LockInfo } from '../contract/backend.js';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import { decodeRepository } from './records.js';

/** Repositories whose names are looked up: whoever reads the list reads no further. */
const maxNamed = 256;

/** Says of each lock what its repository is called now. */
export async function namedLocks(
  coordinator: Pick<Coordinator, 'get'>,
  locks: readonly LockInfo[],
): Promise<readonly LockInfo[]> {
  const ids = new Set(locks.flatMap(({ repositoryId: id }) => (id === undefined ? [] : [id])));
  const named = [...ids].slice(0, maxNamed).map(async (id) => {
    const entry = await coordinator.get(keys.repo(id));
    const record = entry && decodeRepository(entry);
    return [id, record?.state === 'active' ? record.name : undefined] as const;
  });
  const names = new Map(await Promise.all(named));
  return locks.map((lock) => {
    const repository = names.get(lock.repositoryId ?? '');
    return repository === undefined ? lock : { ...lock, repository };
  });
}
