import type {
  Coordinator,
  KeyValue,
  Operation,
  OperationResult,
  RangeOptions,
  RangeResult,
  Transaction,
  TransactionResult,
} from '../contract/coordinator.js';
import { type ErrorCode, QuorateError } from '../contract/errors.js';
import type { ClusterIdentity } from './cluster-identity.js';

/**
 * The coordinator for everybody but the one who recovers it: once it has turned out to be an older copy, or another
 * one, every transaction is refused with `unavailable`. Transactions that only read are, too: what they would be asked
 * is whether something may be dropped. Plain reads go on. The revision of each answer is looked at, so that going back
 * is noticed with the first one, not at the next look; and that answer itself is not taken for one: where nothing was
 * written it is `unavailable`, and of what binds (`Transaction.binding`) nobody is told that it is done. Others are, or
 * a server that is just starting would end: what they say (that it lives) is not worth that.
 *
 * The revision does not tell a copy that has gone past what this process has seen, before it was asked. So what binds
 * compares that what the last one put is there, as it was or changed since (`Witness`): a copy that
 * lacks what was acknowledged through this process takes nothing from it, if one of the last repositories is there.
 */
export function guardCoordinator(coordinator: Coordinator, identity: ClusterIdentity): Coordinator {
  const observed = observeCoordinator(coordinator, identity);
  /** By key, the latest last. */
  const witnesses = new Map<string, Witness>();
  const bind = async (transaction: Transaction): Promise<TransactionResult> => {
    for (;;) {
      const witness = [...witnesses.values()].at(-1);
      const asked = witness === undefined ? transaction : witnessed(transaction, witness);
      const result = await observed.transaction(asked);
      if (result.succeeded) {
        remember(witnesses, transaction, result.revision);
        return result;
      }
      if (witness === undefined || asked === transaction) return result;
      const [found] = entriesOf(result.results.at(-1));
      if (found !== undefined) {
        if (found.modRevision < witness.revision) identity.missing(witness.revision);
        return { ...result, results: result.results.slice(0, -1) };
      }
      // Deleted, with its repository; or not there yet, which one before it tells. Nothing was done: it is asked again.
      if (witnesses.get(witness.key) === witness) witnesses.delete(witness.key);
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

/** What a binding transaction of this process put, and since when it is there. */
interface Witness {
  readonly key: string;
  readonly revision: number;
}

/** So many repositories may be deleted, or not have been there when a backup was made. */
const maxWitnesses = 8;

function remember(
  witnesses: Map<string, Witness>,
  { success }: Transaction,
  revision: number,
): void {
  const put = success.find(stays);
  if (put === undefined) return;
  const { key } = put;
  witnesses.delete(key);
  witnesses.set(key, { key, revision });
  const [oldest] = witnesses.keys();
  if (witnesses.size > maxWitnesses && oldest !== undefined) witnesses.delete(oldest);
}

/** The same transaction, as long as the witness is there; otherwise the last of its results says what is. */
function witnessed(transaction: Transaction, { key, revision }: Witness): Transaction {
  // One that fails may be asked again: only when it has done nothing.
  if (!transaction.failure.every(isRead)) return transaction;
  return {
    ...transaction,
    compares: [
      ...transaction.compares,
      { key, target: 'modRevision', op: '>', operand: revision - 1 },
    ],
    failure: [...transaction.failure, { type: 'get', key }],
  };
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
  throw new QuorateError(code, frozen.message, { details: frozen.details });
}

/** Refuses nothing, and looks at the revisions all the same. */
export function observeCoordinator(
  coordinator: Coordinator,
  identity: ClusterIdentity,
): Coordinator {
  return {
    limits: coordinator.limits,
    get: (key, options): Promise<KeyValue | undefined> => coordinator.get(key, options),
    async range(key: string, options: RangeOptions = {}): Promise<RangeResult> {
      const atLeast = identity.revision;
      const result = await coordinator.range(key, options);
      if (options.linearizable !== false) identity.observe(result.revision, atLeast);
      return result;
    },
    async transaction(transaction: Transaction): Promise<TransactionResult> {
      const atLeast = identity.revision;
      const result = await coordinator.transaction(transaction);
      identity.observe(result.revision, atLeast);
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
