import type {
  Coordinator,
  KeyValue,
  RangeOptions,
  RangeResult,
  Transaction,
  TransactionResult,
} from '../contract/coordinator.js';
import { QuorateError } from '../contract/errors.js';
import type { ClusterIdentity } from './cluster-identity.js';

/**
 * The coordinator for everybody but the one who recovers it: once it has turned out to be an older copy, or another
 * one, every transaction is refused with `unavailable`. Transactions that only read are, too: what they would be asked
 * is whether something may be dropped. Plain reads go on. The revision of each answer is looked at, so that going back
 * is noticed with the first one, not at the next look.
 */
export function guardCoordinator(coordinator: Coordinator, identity: ClusterIdentity): Coordinator {
  return observed(coordinator, identity, () => {
    const { frozen } = identity;
    if (frozen === undefined) return;
    throw new QuorateError('unavailable', frozen.message, { details: frozen.details });
  });
}

/** Refuses nothing, and looks at the revisions all the same. */
export function observeCoordinator(
  coordinator: Coordinator,
  identity: ClusterIdentity,
): Coordinator {
  return observed(coordinator, identity, () => undefined);
}

function observed(
  coordinator: Coordinator,
  identity: ClusterIdentity,
  check: () => void,
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
      check();
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
