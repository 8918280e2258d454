import type {
  Coordinator,
  KeyValue,
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
 */
export function guardCoordinator(coordinator: Coordinator, identity: ClusterIdentity): Coordinator {
  const observed = observeCoordinator(coordinator, identity);
  return {
    ...observed,
    async transaction(transaction: Transaction): Promise<TransactionResult> {
      refuseFrozen(identity, 'unavailable');
      const result = await observed.transaction(transaction);
      const done = result.succeeded ? transaction.success : transaction.failure;
      if (done.every(({ type }) => type === 'get')) refuseFrozen(identity, 'unavailable');
      else if (transaction.binding === true) refuseFrozen(identity, 'outcome-unknown');
      return result;
    },
  };
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
