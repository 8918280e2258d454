import { asQuorateError, QuorateError } from '../contract/errors.js';

/**
 * That a ref has neither the value from before a committed push nor the one from after it is this disk's trouble, and
 * must not be taken for that of the push that is being prepared.
 */
export function unlessDiffering(error: unknown, id: string): unknown {
  const { code, details } = asQuorateError(error);
  if (code !== 'failed-precondition') return error;
  return frozen('the refs on this disk are not those that a committed push found', {
    id,
    ...details,
  });
}

/** What makes a copy unfit to be served, or changed; and what to do about it. */
export function frozen(
  why: string,
  details: Record<string, unknown>,
  remedy?: string,
): QuorateError {
  const rest = remedy === undefined ? '' : `: ${remedy}`;
  return new QuorateError('data-corrupt', `${why}; the repository is frozen${rest}`, { details });
}
