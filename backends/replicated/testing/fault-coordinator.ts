import type { Coordinator, Transaction, TransactionResult } from '../../contract/coordinator.js';
import { keys } from '../../contract/keys.js';

export type Step = (run: () => Promise<TransactionResult>) => Promise<TransactionResult>;

/** A coordinator whose transactions pass through `step`, chosen by what they do. */
export function intercepting(
  coordinator: Coordinator,
  step: (transaction: Transaction) => Step | undefined,
): Coordinator {
  return {
    limits: coordinator.limits,
    get: (key, options) => coordinator.get(key, options),
    range: (key, options) => coordinator.range(key, options),
    transaction: (transaction) => {
      const run = (): Promise<TransactionResult> => coordinator.transaction(transaction);
      return step(transaction)?.(run) ?? run();
    },
    grantLease: (ttlMs) => coordinator.grantLease(ttlMs),
    leaseLeft: (id) => coordinator.leaseLeft(id),
    watch: (key, options) => coordinator.watch(key, options),
    identity: () => coordinator.identity(),
    ping: () => coordinator.ping(),
    close: () => coordinator.close(),
  };
}

export const isCommit = ({ success }: Transaction): boolean =>
  success.some((operation) => operation.type === 'put' && operation.key.startsWith(keys.allLogs));

/** The transaction that decides after a lost answer. */
export const isResolution = ({ failure }: Transaction): boolean =>
  failure.some((operation) => operation.type === 'get' && operation.key.startsWith(keys.allLogs));
