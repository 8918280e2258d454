import { asQuorateError } from '../contract/errors.js';
import type { LogReader } from '../contract/replica.js';
import type { Intent } from './apply-entries.js';
import { lastOf } from './apply-entries.js';
import type { RepositoryState } from './state-file.js';

/**
 * Whether the log goes on from this very state without what an apply that stopped half-way was writing: a recovery has
 * gone on from here meanwhile (`LogEntry.after`). To finish it would take this copy to a generation from which nothing
 * leads on. Only what the log says counts; that it lacks the entries does not, since they may have been trimmed. Rejects
 * with `unavailable` while the coordinator cannot be asked.
 */
export async function isOverruled(
  log: LogReader,
  id: string,
  { generation, digest }: Pick<RepositoryState, 'generation' | 'digest'>,
  stopped: Intent,
): Promise<boolean> {
  const upTo = await headGeneration(log, id);
  // A recovery counts on from what was committed.
  if (upTo <= lastOf(stopped.entries).generation) return false;
  const [next] = await log.entries(id, generation, upTo);
  if (next?.after?.generation !== generation || next.after.digest !== digest) return false;
  // What stopped may be the recovery's own entry.
  return !stopped.entries.some(({ pushId }) => pushId === next.pushId);
}

/** 0 where there is none: it is being made, or is gone. */
async function headGeneration(log: LogReader, id: string): Promise<number> {
  try {
    return (await log.head(id)).generation;
  } catch (error) {
    if (asQuorateError(error).code === 'not-found') return 0;
    throw error;
  }
}
