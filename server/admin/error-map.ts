import { asQuorateError, type ErrorCode, QuorateError } from '../../backends/contract/errors.js';

/** HTTP status of every error code (RFC 9110; 507 from RFC 4918). The admin API maps errors nowhere else. */
const statusByCode: Record<ErrorCode, number> = {
  'invalid-argument': 400,
  unauthenticated: 401,
  'permission-denied': 403,
  'not-found': 404,
  'already-exists': 409,
  'failed-precondition': 409,
  aborted: 409,
  'resource-exhausted': 429,
  'deadline-exceeded': 504,
  cancelled: 503,
  unavailable: 503,
  'storage-failure': 507,
  'data-corrupt': 500,
  'outcome-unknown': 500,
  unimplemented: 501,
  internal: 500,
};

/**
 * Seconds after which a retry makes sense; codes that are not listed do not get better by waiting, unless the error
 * itself says so (a limit of what runs now, a rate). `details.retryAfterSeconds` goes before this; null: a retry mends
 * nothing.
 */
const retryAfterByCode: Partial<Record<ErrorCode, number>> = {
  aborted: 1,
  unavailable: 2,
  'deadline-exceeded': 5,
};

/** What the audit log calls a failure: a `refused` request was judged, an `error` could not be served. */
const outcomeByCode: Record<ErrorCode, 'refused' | 'error'> = {
  'invalid-argument': 'refused',
  unauthenticated: 'refused',
  'permission-denied': 'refused',
  'not-found': 'refused',
  'already-exists': 'refused',
  'failed-precondition': 'refused',
  aborted: 'error',
  'resource-exhausted': 'refused',
  'deadline-exceeded': 'error',
  cancelled: 'error',
  unavailable: 'error',
  'storage-failure': 'error',
  'data-corrupt': 'error',
  'outcome-unknown': 'error',
  unimplemented: 'refused',
  internal: 'error',
};

/**
 * A problem (RFC 9457), the body of every failed answer with the media type `application/problem+json`, and the
 * `error` of a stream that failed. `code` and `details` are members of our own.
 */
export interface Problem {
  /** Names the kind of problem, one for each code. A name, not an address: nothing is behind it. */
  readonly type: string;
  /** The kind of problem in words; always the same for a type. */
  readonly title: string;
  readonly status: number;
  /** What happened this time: one sentence or more. */
  readonly detail: string;
  /** Names this occurrence: the request id, which the log and the audit log have too. */
  readonly instance: string;
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;
}

export const problemMediaType = 'application/problem+json';

/** The kind's URI (RFC 9457 section 3.1.1). */
export function problemType(code: ErrorCode): string {
  return `urn:quorate:problem:${code}`;
}

export const titleByCode: Record<ErrorCode, string> = {
  'invalid-argument': 'The request is not well-formed',
  unauthenticated: 'Signing in is needed',
  'permission-denied': 'Not allowed',
  'not-found': 'Not found',
  'already-exists': 'It exists already',
  'failed-precondition': 'Not possible in the present state',
  aborted: 'Lost a race; try again',
  'resource-exhausted': 'A limit was reached',
  'deadline-exceeded': 'It took too long',
  cancelled: 'The request was given up',
  unavailable: 'Not serving now; try again',
  'storage-failure': 'The storage failed',
  'data-corrupt': 'Stored data is damaged',
  'outcome-unknown': 'It may or may not have happened',
  unimplemented: 'Not offered here',
  internal: 'The server failed',
};

export interface MappedError {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly problem: Problem;
  readonly outcome: 'refused' | 'error';
  /** For the log; carries the cause. */
  readonly cause: QuorateError;
}

/**
 * The answer to an error. What a bug says about itself (`internal`) stays in the log: the client gets the request id
 * to quote.
 */
export function mapError(error: unknown, requestId: string): MappedError {
  const http = fromBodyParser(error);
  const cause = http?.error ?? asQuorateError(error);
  const { retryAfterSeconds: said } = cause.details;
  const retryAfter =
    typeof said === 'number' ? said : said === null ? undefined : retryAfterByCode[cause.code];
  const hidden = cause.code === 'internal';
  const status = http?.status ?? statusByCode[cause.code];
  return {
    status,
    headers: {
      ...(cause.code === 'unauthenticated'
        ? { 'WWW-Authenticate': 'Bearer realm="Quorate", Basic realm="Quorate", charset="UTF-8"' }
        : {}),
      ...(retryAfter === undefined || http !== undefined
        ? {}
        : { 'Retry-After': String(retryAfter) }),
    },
    problem: {
      type: problemType(cause.code),
      title: titleByCode[cause.code],
      status,
      detail: hidden
        ? `internal error; the server's log has it under request id ${requestId}`
        : cause.message,
      instance: requestId,
      code: cause.code,
      details: hidden ? {} : cause.details,
    },
    outcome: outcomeByCode[cause.code],
    cause,
  };
}

/** A request that HTTP itself has a better status for than its error code: 405, 408, 413, 415. */
export class HttpRefusal extends Error {
  readonly status: number;
  readonly error: QuorateError;

  constructor(status: number, error: QuorateError) {
    super(error.message);
    this.status = status;
    this.error = error;
  }
}

/** Express and its body parser throw errors with `status` and, from the body parser, `type`. */
function fromBodyParser(error: unknown): { status: number; error: QuorateError } | undefined {
  if (error instanceof HttpRefusal) return error;
  if (!(error instanceof Error) || error instanceof QuorateError) return undefined;
  const type = 'type' in error ? error.type : undefined;
  const refuse = (status: number, message: string) => ({
    status,
    error: new QuorateError('invalid-argument', message, { cause: error }),
  });
  switch (type) {
    case 'entity.too.large':
      return refuse(413, 'the request body is larger than 1 MiB');
    case 'entity.parse.failed':
      return refuse(400, 'the request body is not valid JSON');
    case 'encoding.unsupported':
      return refuse(415, 'compressed request bodies are not accepted');
    case 'charset.unsupported':
      return refuse(415, 'the request body has to be UTF-8');
    case 'request.aborted':
    case 'request.size.invalid':
      return refuse(400, 'the request body ended early');
    default:
      // A path parameter that is no valid percent-encoding.
      return error instanceof URIError
        ? refuse(400, 'the path is not valid percent-encoding')
        : undefined;
  }
}
