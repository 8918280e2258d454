import { QuorateError } from '../contract/errors.js';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { LogReader } from '../contract/replica.js';
import type { HeadRecord } from '../contract/repository.js';
import {
  copiesOf,
  decodeHead,
  decodeLogEntry,
  decodeRepository,
  rememberedRecords,
  rememberingDecoder,
} from './records.js';

/** Reads the committed log from the coordinator, linearizably: what it says is applied. */
export function coordinatorLog(coordinator: Coordinator): LogReader {
  const decodeCurrentHead = rememberingDecoder(decodeHead, rememberedRecords);
  return {
    async head(repositoryId): Promise<HeadRecord> {
      const kv = await coordinator.get(keys.head(repositoryId));
      if (kv === undefined) {
        throw new QuorateError('not-found', 'the repository was deleted', {
          details: { id: repositoryId },
        });
      }
      return decodeCurrentHead(kv);
    },
    async entries(repositoryId, after, upTo) {
      // Of the latest state: a member that lags may lack the last ones, and has those that a recovery deleted.
      const { entries } = await coordinator.range(keys.logEntry(repositoryId, after + 1), {
        rangeEnd: keys.logEntry(repositoryId, upTo + 1),
      });
      return entries.map(decodeLogEntry);
    },
    async wantsCopy(repositoryId, storeId) {
      const kv = await coordinator.get(keys.repo(repositoryId));
      if (kv === undefined) return undefined;
      const record = decodeRepository(kv);
      if (!copiesOf(record).some((one) => one.storeId === storeId)) return undefined;
      if (record.state === 'deleted') return undefined;
      return record.state === 'creating' ? 'new' : 'living';
    },
  };
}
