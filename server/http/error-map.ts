import type { ErrorCode, QuorateError } from '../../backends/contract/errors.js';

/** HTTP status of each error code (RFC 9110; 429 is RFC 6585's). */
export const statusOfCode: Readonly<Record<ErrorCode, number>> = {
  'invalid-argument': 400,
  unauthenticated: 401,
  'permission-denied': 403,
  'not-found': 404,
  'already-exists': 409,
  'failed-precondition': 409,
  aborted: 409,
  'resource-exhausted': 429,
  'deadline-exceeded': 503,
  // Nobody is left to read it; it is what the log line shows.
  cancelled: 400,
  unavailable: 503,
  'storage-failure': 500,
  'data-corrupt': 500,
  // Never sent: the connection is closed without a verdict. For the log line.
  'outcome-unknown': 500,
  unimplemented: 501,
  internal: 500,
};

/** A refusal that only HTTP knows (405, 413, 415, ...), or an operating error in HTTP's terms. */
export class HttpRefusal extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.name = 'HttpRefusal';
    this.status = status;
    this.headers = headers;
  }
}

/** Seconds after which a client that met a limit or a restart may try again: longer than a restart takes. */
const retryAfterSeconds = '5';

/** RFC 7617. */
export const challenge = 'Basic realm="Quorate"';

/** What a client is told about `error`. Bugs show a request id instead of their message, which may hold paths. */
export function refusalOf(error: QuorateError, requestId: string): HttpRefusal {
  const status = statusOfCode[error.code];
  if (error.code === 'internal') {
    return new HttpRefusal(status, `The server failed; its log has the details as ${requestId}.`);
  }
  const { retryAfterSeconds: seconds } = error.details;
  // A retry mends nothing.
  if (seconds === null) return new HttpRefusal(status, error.message);
  return new HttpRefusal(status, error.message, {
    ...headersOfStatus[status],
    ...(typeof seconds === 'number' ? { 'Retry-After': String(seconds) } : {}),
  });
}

const headersOfStatus: Readonly<Record<number, Readonly<Record<string, string>>>> = {
  401: { 'WWW-Authenticate': challenge },
  429: { 'Retry-After': retryAfterSeconds },
  503: { 'Retry-After': retryAfterSeconds },
};

/** The refusals that the listener itself has for the admin API: a limit, a drain, and what its routes do not take. */
const codeOfStatus: Readonly<Record<number, ErrorCode>> = {
  429: 'resource-exhausted',
  500: 'internal',
  503: 'unavailable',
};

/** The refusal as a problem (RFC 9457), as the admin API itself would answer it. */
export function asProblem(refusal: HttpRefusal, requestId: string): HttpRefusal {
  const { status, message } = refusal;
  const code = codeOfStatus[status] ?? 'invalid-argument';
  const problem = {
    type: `urn:quorate:problem:${code}`,
    title: code,
    status,
    detail: message,
    instance: requestId,
    code,
    details: {},
  };
  return new HttpRefusal(status, JSON.stringify(problem), {
    ...refusal.headers,
    'Content-Type': 'application/problem+json',
  });
}
