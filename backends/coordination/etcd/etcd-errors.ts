import {
  ClientClosedError,
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
  EtcdUserNotFoundError,
  GRPCFailedPreconditionError,
  GRPCInvalidArgumentError,
  GRPCNotImplementedError,
  GRPCOutOfRangeError,
  GRPCResourceExhastedError,
  GRPCUnauthenticatedError,
  GRPCUnavailableError,
  GRPCUnknownError,
} from 'etcd3/lib/errors.js';
import { noRetry, QuorateError } from '../../contract/errors.js';
import { RequestNotTaken } from './grpc-status.js';

/**
 * What an error of etcd says about the request:
 * - `refused`: nothing happened, and asking again gives the same answer;
 * - `not-taken`: nothing happened; another member, or a later moment, may do it;
 * - `unknown`: it may have happened.
 */
export type Verdict = 'refused' | 'not-taken' | 'unknown';

/**
 * Errors by which etcd refuses a request before it is proposed. Not among them: `database space exceeded` (the
 * transaction that crosses the quota is applied, and answered with it), `too many requests`, and everything about time.
 */
const refusals = [
  ClientClosedError,
  EtcdAuthenticationFailedError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
  EtcdUserNotFoundError,
  GRPCFailedPreconditionError,
  GRPCInvalidArgumentError,
  GRPCNotImplementedError,
  GRPCOutOfRangeError,
  GRPCUnauthenticatedError,
] as const;

export function judgeError(error: unknown): Verdict {
  if (error instanceof QuorateError) return 'refused';
  if (isTokenPast(error)) return 'not-taken';
  if (refusals.some((kind) => error instanceof kind)) return 'refused';
  return isNotTaken(error) ? 'not-taken' : 'unknown';
}

/**
 * etcd's errors are told apart by these fixed texts (`rpctypes` in etcd's client does the same); several share a gRPC
 * code. The first is given before a request is taken, to those who asked for a leader (`hasleader`); the second by
 * raft, when it drops a proposal instead of appending or forwarding it.
 */
function isNotTaken(error: unknown): boolean {
  if (error instanceof RequestNotTaken) return true;
  if (error instanceof GRPCUnavailableError) return error.message.endsWith('etcdserver: no leader');
  return error instanceof GRPCUnknownError && error.message.endsWith('raft proposal dropped');
}

/**
 * The token is to be asked for anew, and nothing was done: etcd has forgotten it (it was started again, or nobody used
 * the token for a while), or, where tokens carry the revision of users and rights (`jwt`), somebody has changed those.
 * A transaction that is applied after such a change is refused as a whole.
 */
export function isTokenPast(error: unknown): boolean {
  if (error instanceof EtcdInvalidAuthTokenError) return true;
  return (
    error instanceof GRPCInvalidArgumentError &&
    error.message.endsWith('etcdserver: revision of auth store is old')
  );
}

/** The grant of a lease whose id exists: the one before it arrived, and its answer was lost. */
export function isLeaseExisting(error: unknown): boolean {
  return (
    error instanceof GRPCFailedPreconditionError &&
    error.message.endsWith('etcdserver: lease already exists')
  );
}

/**
 * etcd's database has reached its quota. Given before a request is proposed, or in the place of the result when it was
 * carried out all the same (the one that crosses the quota): either way it is over.
 */
export function isFull(error: unknown): boolean {
  return (
    error instanceof GRPCResourceExhastedError && error.message.endsWith('database space exceeded')
  );
}

/** What a transaction fails with of which nobody knows, by its answer, whether it happened. */
export function unknownOf(error: unknown, where: string): QuorateError {
  if (isFull(error)) {
    return new QuorateError('outcome-unknown', fullMessage(where), {
      cause: error,
      details: { answered: true },
    });
  }
  const message = `the coordinator's answer was lost: ${reasonOf(error)}`;
  return new QuorateError('outcome-unknown', message, { cause: error });
}

function fullMessage(where: string): string {
  return (
    `the coordinator at ${where} is full and takes no changes until an operator has made room: ` +
    'compact its history (etcdctl compact), defragment every member (etcdctl defrag), or raise ' +
    '--quota-backend-bytes, and then disarm its alarm (etcdctl alarm disarm)'
  );
}

/** The revision that a page of a range was to be read at is gone. */
export function isCompacted(error: unknown): boolean {
  return error instanceof GRPCOutOfRangeError;
}

/** The contract's error for one after which nothing happened. */
export function refusalOf(error: unknown, where: string): QuorateError {
  if (error instanceof QuorateError) return error;
  if (error instanceof EtcdLeaseInvalidError) {
    return new QuorateError('failed-precondition', 'the lease has ended', { cause: error });
  }
  if (error instanceof ClientClosedError) {
    return new QuorateError('unavailable', 'the coordinator is closed', { cause: error });
  }
  if (error instanceof GRPCInvalidArgumentError) {
    const message = `the coordinator refuses the request: ${reasonOf(error)}`;
    return new QuorateError('invalid-argument', message, { cause: error });
  }
  if (
    error instanceof EtcdAuthenticationFailedError ||
    error instanceof EtcdPermissionDeniedError
  ) {
    const message =
      `the coordinator at ${where} refuses the user of this process (${reasonOf(error)}): look at etcd.user and ` +
      'the password in etcd.passwordFile, and at the rights of that user below etcd.prefix';
    return new QuorateError('unavailable', message, { cause: error });
  }
  const message = isFull(error)
    ? fullMessage(where)
    : `the coordinator at ${where} does not answer: ${reasonOf(error)}`;
  // A full database waits for people.
  const details = isFull(error) ? { ...noRetry } : {};
  return new QuorateError('unavailable', message, { details, cause: error });
}

/** An error's own words, without the class and code that etcd3 puts before them. */
export function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/^\w+Error: /, '').replace(/^\d+( [A-Z_]+)?: /, '');
}
