import type { ErrorCode, QuorateError } from '../../backends/contract/errors.js';

/** `refused`: the client was told no. `error`: something here went wrong. For logs and metrics. */
type Outcome = 'refused' | 'error';

interface SshFailure {
  readonly outcome: Outcome;
  /** Exit status of the channel; undefined closes it without one, which says that nothing is known. */
  readonly exitCode: number | undefined;
}

/** git dies with 128 when it cannot serve at all. */
const fatalExit = 128;

export const failureOfCode: Readonly<Record<ErrorCode, SshFailure>> = {
  'invalid-argument': { outcome: 'refused', exitCode: fatalExit },
  unauthenticated: { outcome: 'refused', exitCode: fatalExit },
  'permission-denied': { outcome: 'refused', exitCode: fatalExit },
  'not-found': { outcome: 'refused', exitCode: fatalExit },
  'already-exists': { outcome: 'refused', exitCode: fatalExit },
  'failed-precondition': { outcome: 'refused', exitCode: fatalExit },
  aborted: { outcome: 'refused', exitCode: fatalExit },
  'resource-exhausted': { outcome: 'refused', exitCode: fatalExit },
  'deadline-exceeded': { outcome: 'error', exitCode: fatalExit },
  cancelled: { outcome: 'error', exitCode: fatalExit },
  unavailable: { outcome: 'error', exitCode: fatalExit },
  'storage-failure': { outcome: 'error', exitCode: fatalExit },
  'data-corrupt': { outcome: 'error', exitCode: fatalExit },
  'outcome-unknown': { outcome: 'error', exitCode: undefined },
  unimplemented: { outcome: 'refused', exitCode: fatalExit },
  internal: { outcome: 'error', exitCode: fatalExit },
};

/**
 * The line on the client's terminal. Bugs show a request id instead of their message, which may hold paths. Control
 * characters are dropped: the text may repeat what a hostile repository name brought along.
 */
export function failureLine(error: QuorateError, requestId: string): string {
  const text =
    error.code === 'internal'
      ? `the server failed; its log has the details as ${requestId}`
      : error.message;
  return `ERROR: ${text.replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ')}\n`;
}
