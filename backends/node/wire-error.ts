import { z } from 'zod';
import { asQuorateError, type ErrorCode, QuorateError } from '../contract/errors.js';

const codes = {
  'invalid-argument': true,
  unauthenticated: true,
  'permission-denied': true,
  'not-found': true,
  'already-exists': true,
  'failed-precondition': true,
  aborted: true,
  'resource-exhausted': true,
  'deadline-exceeded': true,
  cancelled: true,
  unavailable: true,
  'storage-failure': true,
  'data-corrupt': true,
  'outcome-unknown': true,
  unimplemented: true,
  internal: true,
} as const satisfies Record<ErrorCode, true>;

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(codes, code);
}

const wireError = z.object({
  code: z.string().refine(isErrorCode),
  message: z.string(),
  details: z.record(z.string(), z.unknown()).optional(),
});

/** An error as it travels. Causes stay where they are: they hold paths, and their text is for our own log. */
export function encodeError(error: unknown): Buffer {
  const { code, message, details } = asQuorateError(error);
  try {
    return Buffer.from(JSON.stringify({ code, message, details }));
  } catch {
    return Buffer.from(JSON.stringify({ code, message }));
  }
}

/** The error that the other side met; `internal` when it cannot be told. */
export function decodeError(payload: Uint8Array): QuorateError {
  try {
    const { code, message, details } = wireError.parse(JSON.parse(Buffer.from(payload).toString()));
    return new QuorateError(code, message, details === undefined ? {} : { details });
  } catch (cause) {
    return new QuorateError('internal', 'a member of the cluster failed, and did not say why', {
      cause,
    });
  }
}
