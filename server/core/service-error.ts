import { asQuorateError, QuorateError, type ErrorCode } from '../../backends/contract/errors.js';
import { WireError, type WireErrorKind } from '../wire/wire-error.js';

/**
 * A well-formed request that is answered with no, in the protocol's own form: an `ERR` packet in a good reply, which
 * git shows as `remote error: ...`.
 */
export class ProtocolRefusal extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ProtocolRefusal';
  }
}

const codeOfKind: Readonly<Record<WireErrorKind, ErrorCode>> = {
  malformed: 'invalid-argument',
  truncated: 'invalid-argument',
  'too-large': 'resource-exhausted',
  unsupported: 'unimplemented',
};

/**
 * What a well-formed request is refused with, if that is what `error` is: a limit on counts or lengths among them,
 * since a 4xx of HTTP would reach the person at the terminal as a bare number.
 */
export function refusalIn(error: unknown): string | undefined {
  if (error instanceof ProtocolRefusal) return error.message;
  const refuses =
    error instanceof WireError && (error.kind === 'too-large' || error.kind === 'unsupported');
  return refuses ? error.message : undefined;
}

/** Anything thrown while serving, as an operating error. */
export function asServiceError(error: unknown): QuorateError {
  if (!(error instanceof WireError)) return asQuorateError(error);
  return new QuorateError(codeOfKind[error.kind], error.message, { cause: error });
}

/** Why an aborted request ended: the listener's own reason (a time limit), or the client's leaving. */
export function cancelledBy({ reason }: AbortSignal): QuorateError {
  if (reason instanceof QuorateError) return reason;
  return new QuorateError('cancelled', 'the client is gone', { cause: reason });
}

/** What a client may read of an error: bugs and storage show a request id instead of their words, which may hold paths. */
export function publicMessage(error: QuorateError, requestId: string): string {
  return error.code === 'internal'
    ? `the server failed; its log has the details as ${requestId}`
    : error.message;
}
