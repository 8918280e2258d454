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
