import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';

const lockExclusive = 2;
const lockNonBlocking = 4;

export interface Ownership {
  release(): void;
}

/**
 * Makes this process the only owner of a store's directory until `release`. LMDB itself would let a second process
 * in, and its leases and watches would not see the first one's. `flock` is used because the kernel ends it with the
 * process, however that dies; Node has no call for it. Throws `failed-precondition` when another owner lives.
 */
export async function takeOwnership(directory: string, logger: Logger): Promise<Ownership> {
  flockLoading ??= loadFlock(logger);
  const flock = await flockLoading;
  const descriptor = openSync(join(directory, 'owner.lock'), 'a', 0o600);
  if (flock !== undefined && flock(descriptor, lockExclusive | lockNonBlocking) !== 0) {
    closeSync(descriptor);
    throw new QuorateError(
      'failed-precondition',
      "the coordinator's store is in use by another Quorate process",
    );
  }
  return { release: () => closeSync(descriptor) };
}

/** Loaded once. */
let flockLoading: Promise<Flock | undefined> | undefined;

type Flock = (descriptor: number, operation: number) => number;

async function loadFlock(logger: Logger): Promise<Flock | undefined> {
  try {
    const { load } = await import('koffi');
    const flock = load(null).func('int flock(int fd, int operation)');
    return (descriptor, operation) => Number(flock(descriptor, operation));
  } catch (error) {
    logger.warn({ error }, 'no flock here: a second process on this store would not be noticed');
    return undefined;
  }
}
