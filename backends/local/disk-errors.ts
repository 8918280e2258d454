import { QuorateError } from '../contract/errors.js';

/** What the operating system says of a failed file operation, as the error that every layer knows; others as they are. */
export function storageFailure(error: unknown): unknown {
  const failedCall = error instanceof Error && 'syscall' in error && 'code' in error;
  if (error instanceof QuorateError || !failedCall) return error;
  return new QuorateError('storage-failure', "the server's disk is full, read-only or failing", {
    cause: error,
    details: { code: error.code },
  });
}
