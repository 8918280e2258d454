import type {
  Compare,
  Coordinator,
  KeyValue,
  Operation,
  OperationResult,
  RangeOptions,
  RangeResult,
  Transaction,
  TransactionResult,
} from '../contract/coordinator.js';
import { type ErrorCode, noRetry, QuorateError } from '../contract/errors.js';
import { keys } from '../contract/keys.js';
import type { ClusterIdentity } from './cluster-identity.js';
import type { Witness, Witnesses } from './witnesses.js';

/**
 * The coordinator for everybody but the one who recovers it: once it has turned out to be an older copy, or another
 * one, every transaction is refused with `unavailable`. Transactions that only read are, too: what they would be asked
 * is whether something may be dropped. Plain reads go on. The revision of each answer is looked at, so that going back
 * is noticed with the first one, not at the next look; and that answer itself is not taken for one: where nothing was
 * written it is `unavailable`, and of what binds (`Transaction.binding`) nobody is told that it is done. Others are, or
 * a server that is just starting would end: what they say (that it lives) is not worth that.
 *
 * The revision does not tell a copy that has gone past what this process has seen, before it was asked. So what binds
 * compares that what the last one put is there, as it was or changed since, and what answers showed (`Witnesses`): a copy
 * that lacks what was acknowledged through this process takes nothing from it, if one of the last repositories is there. And
 * that the cluster's record is as it was: from when one process has said there that this is an older copy, nobody
 * commits.
 */
export function guardCoordinator(coordinator: Coordinator, identity: ClusterIdentity): Coordinator {
  const observed = observeCoordinator(coordinator, identity);
  const { witnesses } = identity;
  const bind = async (transaction: Transaction): Promise<TransactionResult> => {
    for (;;) {
      const { recordRevision } = identity;
      const known = witnesses.all;
      const asked = insisting(transaction, recordRevision, known);
      const result = await observed.transaction(asked);
      if (result.succeeded) {
        remember(witnesses, transaction, result.revision);
        return result;
      }
      if (asked === transaction) return result;
      // It has failed, and nothing was done; whether by what it asks itself, the reads at its end say.
      const own = transaction.failure.length;
      const [record, ...found] = result.results.slice(own).map((one) => entriesOf(one)[0]);
      const isKnown = record?.modRevision === recordRevision;
      if (!isKnown) await lookAgain(identity, recordRevision);
      const there = known.filter((witness, index) => isThere(identity, witness, found[index]));
      if (isKnown && there.length === known.length) {
        return { ...result, results: result.results.slice(0, own) };
      }
      refuseFrozen(identity, 'unavailable');
    }
  };
  return {
    ...observed,
    async transaction(transaction: Transaction): Promise<TransactionResult> {
      refuseFrozen(identity, 'unavailable');
      const isBinding = transaction.binding === true;
      const result = await (isBinding ? bind(transaction) : observed.transaction(transaction));
      const done = result.succeeded ? transaction.success : transaction.failure;
      if (done.every(isRead)) refuseFrozen(identity, 'unavailable');
      else if (isBinding) refuseFrozen(identity, 'outcome-unknown');
      return result;
    },
  };
}

function remember(witnesses: Witnesses, { success }: Transaction, revision: number): void {
  const put = success.find(stays);
  if (put !== undefined) witnesses.put({ key: put.key, revision });
}

/** The same transaction, as long as record and witnesses are as they were; the last of its results say what is, otherwise. */
function insisting(
  transaction: Transaction,
  recordRevision: number,
  witnesses: readonly Witness[],
): Transaction {
  // One that fails may be asked again: only when it has done nothing.
  if (!transaction.failure.every(isRead)) return transaction;
  const record: Compare = {
    key: keys.cluster,
    target: 'modRevision',
    op: '=',
    operand: recordRevision,
  };
  const seen = witnesses.map(({ key, revision }): Compare => {
    return { key, target: 'modRevision', op: '>', operand: revision - 1 };
  });
  const asked = [record, ...seen];
  return {
    ...transaction,
    compares: [...transaction.compares, ...asked],
    failure: [...transaction.failure, ...asked.map(({ key }): Operation => ({ type: 'get', key }))],
  };
}

/** Freezes when something else is; and forgets what is deleted, with its repository, or not there yet, which another tells. */
function isThere(
  identity: ClusterIdentity,
  witness: Witness,
  found: KeyValue | undefined,
): boolean {
  if (found === undefined) identity.witnesses.forget(witness);
  else if (found.modRevision < witness.revision) identity.missing(witness.revision);
  else return true;
  return false;
}

/** Somebody has changed the cluster's record: that this is an older copy, perhaps. */
async function lookAgain(identity: ClusterIdentity, before: number): Promise<void> {
  let cause: unknown;
  await identity.check().catch((error: unknown) => {
    cause = error;
  });
  refuseFrozen(identity, 'unavailable');
  if (identity.recordRevision !== before) return;
  const message = 'the record of the cluster was changed, and cannot be read; nothing was done';
  throw new QuorateError('unavailable', message, { cause });
}

const isRead = ({ type }: Operation): boolean => type === 'get';

/** Puts that no lease takes away again. */
const stays = (operation: Operation): boolean =>
  operation.type === 'put' && operation.lease === undefined;

function entriesOf(result: OperationResult | undefined): readonly KeyValue[] {
  return result?.type === 'get' ? result.entries : [];
}

function refuseFrozen({ frozen }: ClusterIdentity, code: ErrorCode): void {
  if (frozen === undefined) return;
  throw new QuorateError(code, frozen.message, { details: { ...frozen.details, ...noRetry } });
}

/** Refuses nothing, and looks at the revisions all the same. */
export function observeCoordinator(
  coordinator: Coordinator,
  identity: ClusterIdentity,
): Coordinator {
  return {
    limits: coordinator.limits,
    async get(key, options): Promise<KeyValue | undefined> {
      const entry = await coordinator.get(key, options);
      if (entry !== undefined) identity.witnesses.note([entry]);
      return entry;
    },
    async range(key: string, options: RangeOptions = {}): Promise<RangeResult> {
      const atLeast = identity.revision;
      const result = await coordinator.range(key, options);
      if (options.linearizable !== false) identity.observe(result.revision, atLeast);
      identity.witnesses.note(result.entries);
      return result;
    },
    async transaction(transaction: Transaction): Promise<TransactionResult> {
      const atLeast = identity.revision;
      const result = await coordinator.transaction(transaction);
      identity.observe(result.revision, atLeast);
      for (const read of result.results) identity.witnesses.note(entriesOf(read));
      return result;
    },
    grantLease: (ttlMs) => coordinator.grantLease(ttlMs),
    leaseLeft: (id) => coordinator.leaseLeft(id),
    watch: (key, options) => coordinator.watch(key, options),
    identity: () => coordinator.identity(),
    ping: () => coordinator.ping(),
    close: () => coordinator.close(),
  };
}
