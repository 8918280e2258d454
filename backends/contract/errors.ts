/** Closed set of operating errors. Each listener maps every code once (`error-map.ts`). */
export type ErrorCode =
  /** The request is malformed or breaks a stated limit of its own form. */
  | 'invalid-argument'
  /** Nobody is signed in and the action needs somebody. */
  | 'unauthenticated'
  /** Signed in, and not allowed. */
  | 'permission-denied'
  /** It does not exist, or the principal may not know that it does. */
  | 'not-found'
  | 'already-exists'
  /** The state of the thing does not permit it now (stale old value, frozen repository, wrong epoch). */
  | 'failed-precondition'
  /** Lost a race; nothing changed; safe to retry. */
  | 'aborted'
  /** A size, count or rate limit was reached; nothing changed. */
  | 'resource-exhausted'
  /** Waiting took longer than the deadline allows; nothing changed. */
  | 'deadline-exceeded'
  /** The caller went away or gave up. */
  | 'cancelled'
  /** Not serving now: starting, draining, no quorum. Nothing changed; safe to retry. */
  | 'unavailable'
  /** The disk is full, read-only or failing. */
  | 'storage-failure'
  /** Stored data is damaged. */
  | 'data-corrupt'
  /** The transaction's answer was lost: it may or may not have happened. */
  | 'outcome-unknown'
  /** Not offered here. */
  | 'unimplemented'
  /** A bug. */
  | 'internal';

/** An operating error. `message` is one clear sentence for the user; secrets and paths stay out of it. */
export class QuorateError extends Error {
  readonly code: ErrorCode;
  /** Machine-readable facts for logs and API answers. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { details?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'QuorateError';
    this.code = code;
    this.details = options.details ?? {};
  }
}

/**
 * Details of an `unavailable` that waiting does not mend: people have to do something first, which the message names.
 * Nobody is told to try again then.
 */
export const noRetry: Readonly<Record<string, unknown>> = { retryAfterSeconds: null };

/** Details of a limit that is free again soon: of what runs or waits now. */
export const retrySoon: Readonly<Record<string, unknown>> = { retryAfterSeconds: 10 };

/**
 * Details of an error by which a store says that its copy lacks pushes which neither the log nor another store gives it
 * now. Without them, an apply that failed may come to its end when its store is well, with what is there already.
 */
export const lacksPushes: Readonly<Record<string, unknown>> = { lacksPushes: true };

/** The error as a QuorateError; anything unforeseen becomes `internal` and keeps its cause. */
export function asQuorateError(error: unknown): QuorateError {
  if (error instanceof QuorateError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new QuorateError('internal', `internal error: ${message}`, { cause: error });
}

/** An `outcome-unknown` of the coordinator, where it is certain all the same that nothing happened. */
export function nothingChanged(error: unknown): QuorateError {
  const { details, message } = asQuorateError(error);
  const why = details['answered'] === true ? message : 'the coordinator does not answer';
  return new QuorateError('unavailable', `${why}; nothing changed, it is safe to try again`, {
    cause: error,
  });
}

/** What `signal.throwIfAborted()` is for, with an error that callers can map: throws `cancelled`. */
export function refuseCancelled(signal: AbortSignal): void {
  if (signal.aborted) {
    throw new QuorateError('cancelled', 'the caller gave up', { cause: signal.reason });
  }
}

/** Settles with `promise`, or rejects with `cancelled` as soon as the signal aborts. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(new QuorateError('cancelled', 'the push was given up'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    void promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
