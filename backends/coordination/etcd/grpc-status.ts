import type { IncomingHttpHeaders } from 'node:http2';
import { castGrpcError } from 'etcd3/lib/errors.js';

/** Of gRPC's codes those that are given here (`statuscodes.md` of gRPC). */
export const statusCode = {
  unknown: 2,
  deadlineExceeded: 4,
  resourceExhausted: 8,
  internal: 13,
  unavailable: 14,
} as const;

/** The request was not looked at: it may be sent again, whatever it asks for. */
export class RequestNotTaken extends Error {}

/** The same error as etcd3 makes of it. */
export function failure(code: number, details: string): Error {
  return castGrpcError(Object.assign(new Error(`${code}: ${details}`), { code }));
}

/** What is wrong with an answer, by its last headers; undefined: nothing. */
export function verdictOf(
  httpStatus: number | undefined,
  headers: IncomingHttpHeaders,
): Error | undefined {
  const { 'grpc-status': status, 'grpc-message': message } = headers;
  if (status === '0') return undefined;
  if (status !== undefined) return failure(Number(status), decodeMessage(String(message ?? '')));
  if (httpStatus === 200) return failure(statusCode.unknown, 'an answer without a status');
  const isPassing = httpStatus !== undefined && passing.has(httpStatus);
  const code = isPassing ? statusCode.unavailable : statusCode.unknown;
  return failure(code, `HTTP status ${httpStatus ?? 'missing'}`);
}

/** Of a proxy in between, or of a member that has no room now (`http-grpc-status-mapping.md` of gRPC). */
const passing: ReadonlySet<number> = new Set([429, 502, 503, 504]);

function decodeMessage(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
