import type { KeyValue } from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { HeadRecord } from '../contract/repository.js';
import { decodeHead, decodeRepository, type RepositoryRecord } from './records.js';

/** A head, and the revision of its record. */
export interface HeadSeen {
  readonly head: HeadRecord;
  readonly headRevision: number;
}

/** What a change is judged against; the transaction that commits it compares that it is still so. */
export interface Basis extends HeadSeen {
  readonly record: RepositoryRecord;
  /** Modification revision of the record. */
  readonly configRevision: number;
  /** The head as it is stored. */
  readonly headValue: Uint8Array;
}

/** A repository's record, and the modification revision of what it was read from. */
export interface StoredRecord {
  readonly record: RepositoryRecord;
  readonly revision: number;
}

/** From what was read of a repository. The two need not be of one moment, since the commit compares both. */
export function basisFrom({ record, revision }: StoredRecord, head: KeyValue): Basis {
  return {
    record,
    configRevision: revision,
    head: decodeHead(head),
    headRevision: head.modRevision,
    headValue: head.value,
  };
}

/** From what was read with the locks. */
export function basisUnderLocks(
  repositoryId: string,
  reads: ReadonlyMap<string, KeyValue | undefined>,
): Basis {
  const repository = reads.get(keys.repo(repositoryId));
  const head = reads.get(keys.head(repositoryId));
  if (repository === undefined || head === undefined) throw deleted(repositoryId);
  const record = decodeRepository(repository);
  if (record.state !== 'active') throw deleted(repositoryId);
  return basisFrom({ record, revision: repository.modRevision }, head);
}

export function deleted(id: string): QuorateError {
  return new QuorateError('not-found', 'the repository was deleted', { details: { id } });
}
