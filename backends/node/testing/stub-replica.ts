import { QuorateError } from '../../contract/errors.js';
import type { Replica } from '../../contract/replica.js';

function refuse(): Promise<never> {
  return Promise.reject(new QuorateError('unimplemented', 'this stub has no such call'));
}

/** A replica of which a test needs a few calls only; every other one is refused. */
export function stubReplica(calls: Partial<Replica>, storeId = 'ab'.repeat(16)): Replica {
  return {
    storeId,
    create: refuse,
    fork: refuse,
    leavePool: refuse,
    destroyPool: refuse,
    upload: refuse,
    prepare: refuse,
    nonFastForwards: refuse,
    runHook: refuse,
    inspect: () => ({ [Symbol.asyncIterator]: () => ({ next: refuse }) }),
    storeUpdates: refuse,
    apply: refuse,
    keep: refuse,
    abort: refuse,
    heldPushes: refuse,
    gather: refuse,
    applied: refuse,
    read: refuse,
    maintain: refuse,
    destroy: refuse,
    copies: refuse,
    state: refuse,
    stats: refuse,
    export: refuse,
    catchUp: refuse,
    verify: refuse,
    ...calls,
  };
}
