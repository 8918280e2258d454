import type { Coordinator } from '../contract/coordinator.js';
import type { Logger } from '../contract/environment.js';
import { keys } from '../contract/keys.js';
import type { LogReader } from '../contract/replica.js';
import { type RepositoryRecord, scan } from './records.js';
import type { ReplicaDirectory } from './voters.js';

/**
 * Brings this process's stores up to the heads, at its start. A repository that cannot be is logged and stays unserved.
 * Returns how many have entries in the log.
 */
export async function applyLog({
  coordinator,
  log,
  logger,
  replicas,
  readRecord,
}: {
  readonly coordinator: Coordinator;
  readonly log: LogReader;
  readonly logger: Logger;
  readonly replicas: ReplicaDirectory;
  readonly readRecord: (id: string) => Promise<RepositoryRecord | undefined>;
}): Promise<number> {
  const here = replicas.nodes().filter(({ local }) => local);
  const ids = new Set<string>();
  if (here.length === 0) return 0;
  for await (const { key } of scan(coordinator, keys.allLogs, { keysOnly: true })) {
    ids.add(key.slice(keys.allLogs.length).split('/', 1)[0] ?? '');
  }
  for (const id of ids) {
    try {
      const record = await readRecord(id);
      const stores = here.filter(({ storeId }) =>
        record?.voters.some((voter) => voter.storeId === storeId),
      );
      if (stores.length === 0) continue;
      const { generation } = await log.head(id);
      for (const { storeId } of stores) await replicas.find(storeId)?.apply(id, generation);
    } catch (error) {
      logger.error(
        { component: 'backend', repo: id, err: error },
        'a repository was not recovered',
      );
    }
  }
  return ids.size;
}
