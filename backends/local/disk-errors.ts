import { QuorateError } from '../contract/errors.js';

/** What a disk says. Errors of sockets have other codes: a client that is gone is no failure of ours. */
const diskCodes: ReadonlySet<string> = new Set(
  (
    'ENOSPC EDQUOT EFBIG EROFS EIO ESTALE ENODEV ENXIO EBUSY EACCES EPERM EMFILE ENFILE ENOMEM ' +
    'ENOENT EEXIST ENOTDIR EISDIR ENOTEMPTY ELOOP ENAMETOOLONG'
  ).split(' '),
);

/** A failed file operation as the error that every layer knows; anything else as it is. */
export function storageFailure(error: unknown): unknown {
  if (error instanceof QuorateError || !(error instanceof Error) || !('code' in error))
    return error;
  const { code } = error;
  if (typeof code !== 'string' || !diskCodes.has(code)) return error;
  return new QuorateError('storage-failure', "the server's disk is full, read-only or failing", {
    cause: error,
    details: { code },
  });
}

/** Codes of errors that say nothing of the data, whatever it was that was read or written. */
const machineCodes: ReadonlySet<unknown> = new Set(
  (
    'ENOSPC EDQUOT EROFS ESTALE ENODEV ENXIO EBUSY EACCES EPERM EMFILE ENFILE ENOMEM EAGAIN ' +
    'ETIMEDOUT ENOTCONN EINTR'
  ).split(' '),
);

/** Whether something failed since the machine is short of something, or does not let us: no copy is damaged by that. */
export function isOfTheMachine(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if ('code' in error && machineCodes.has(error.code)) return true;
  if (error instanceof QuorateError) {
    const { code, trouble } = error.details;
    if (trouble !== undefined || machineCodes.has(code)) return true;
  }
  return isOfTheMachine(error.cause);
}
