import { QuorateError } from '../contract/errors.js';
import type { Coordinator } from '../contract/coordinator.js';
import { keys } from '../contract/keys.js';
import type { LogReader } from '../contract/replica.js';
import type { HeadRecord, LogEntry } from '../contract/repository.js';
import {
  copiesOf,
  decodeHead,
  decodeLogEntry,
  decodeRepository,
  rememberedRecords,
  rememberingDecoder,
} from './records.js';

/** Reads the committed log from the coordinator: heads linearizably, entries from wherever all of them are. */
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
      const read = async (linearizable: boolean): Promise<readonly LogEntry[]> => {
        const { entries } = await coordinator.range(keys.logEntry(repositoryId, after + 1), {
          rangeEnd: keys.logEntry(repositoryId, upTo + 1),
          linearizable,
        });
        return entries.map(decodeLogEntry);
      };
      // An entry is put once, under a key that is never used again: wherever it is seen, it is the committed one. That
      // it is not there has to be asked of the latest state.
      const seen = await read(false);
      const isWhole = seen.at(-1)?.generation === upTo && seen.length === upTo - after;
      return isWhole ? seen : read(true);
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
