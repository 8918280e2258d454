import type { KeyValue, Operation, TransactionResult } from '../contract/coordinator.js';
import { keys, prefixEnd } from '../contract/keys.js';
import type { LogEntry } from '../contract/repository.js';
import { decodeLogEntry } from './records.js';
import { type Hold, stillHeld } from './without-locks.js';

/** A push whose commit was not answered. Whoever pushes listens to the outbox (`Outbox.attend`). */
export interface InDoubt {
  readonly held: Hold;
  /** The head that it was judged against: it is not in the log before that. */
  readonly basis: number;
  /** Front-end whose outbox the push goes to. */
  readonly frontEnd: string;
  readonly entry: Pick<LogEntry, 'pushId'>;
}

/** Reads what tells whether a push was committed: see `judgeFound`. */
export function lookFor(
  repositoryId: string,
  { basis, entry, frontEnd, held }: InDoubt,
): readonly Operation[] {
  const after = keys.logEntry(repositoryId, basis + 1);
  return [
    { type: 'get', key: after, rangeEnd: prefixEnd(keys.log(repositoryId)) },
    { type: 'get', key: keys.outbox(repositoryId, entry.pushId) },
    { type: 'get', key: keys.repo(repositoryId) },
    { type: 'get', key: keys.frontEnd(frontEnd) },
    ...held.locks.map(({ key }): Operation => ({ type: 'get', key })),
  ];
}

/**
 * What the answer to `lookFor` says of a push: its entry; or `not committed`: by then, and what else was there keeps nobody
 * from committing it later; or `nobody knows`: its entry may have been applied everywhere and trimmed, or have gone with
 * its repository. The outbox record goes after all else, and while its front-end's key is there, whose id is never used
 * again, and the push runs, nobody takes that up.
 */
export function judgeFound(
  { held, entry: { pushId } }: InDoubt,
  results: TransactionResult['results'],
): LogEntry | 'not committed' | 'nobody knows' {
  const [log, outbox, repository, frontEnd, ...locks] = results.map(entriesOf);
  const entry = log?.map(decodeLogEntry).find((one) => one.pushId === pushId);
  if (entry !== undefined) return entry;
  if (outbox?.length !== 0 || repository?.length !== 1) return 'nobody knows';
  const isKnown = frontEnd?.length === 1 || stillHeld(held, locks.flat());
  return isKnown ? 'not committed' : 'nobody knows';
}

export function entriesOf(
  result: TransactionResult['results'][number] | undefined,
): readonly KeyValue[] {
  return result?.type === 'get' ? result.entries : [];
}
