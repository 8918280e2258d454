import type { EtcdSettings } from './etcd-settings.js';

/** What passes between the main thread and the thread that keeps leases alive. */
export interface LeaseWorkerData {
  readonly settings: EtcdSettings;
  /** One `Int32` that the main loop counts up as long as it turns. */
  readonly heartbeat: SharedArrayBuffer;
}

export type ToLeaseWorker =
  | {
      readonly type: 'keep';
      readonly id: string;
      readonly ttlMs: number;
      /**
       * One `BigInt64`: when the request was sent that confirmed the lease last, in nanoseconds of
       * `process.hrtime.bigint()`, which all threads share; `leaseGone` when the lease has ended.
       */
      readonly confirmed: SharedArrayBuffer;
    }
  | { readonly type: 'drop'; readonly id: string }
  | { readonly type: 'renew'; readonly tls: EtcdSettings['tls'] };

/** In `confirmed`: the lease has ended in etcd. */
export const leaseGone = 0n;

/** How often the main loop says that it turns. */
export const heartbeatMs = 200;

/** A main loop that has not turned for so many times to live is dead, and its leases are let go. */
export const deadAfterTtls = 2;

export function nowNs(): bigint {
  return process.hrtime.bigint();
}
