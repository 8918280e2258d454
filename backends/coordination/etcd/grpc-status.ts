import { castGrpcError } from 'etcd3';
import type { Headers } from './header-block.js';

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
export function verdictOf(httpStatus: string, headers: Headers): Error | undefined {
  const status = headers.get('grpc-status');
  if (status === '0') return undefined;
  if (status !== undefined) {
    return failure(Number(status), decodeMessage(headers.get('grpc-message') ?? ''));
  }
  const code = passing.has(httpStatus) ? statusCode.unavailable : statusCode.unknown;
  return failure(code, `HTTP status ${httpStatus === '' ? 'missing' : httpStatus}`);
}

/** Of a proxy in between, or of a member that has no room now (`http-grpc-status-mapping.md` of gRPC). */
const passing: ReadonlySet<string> = new Set(['429', '502', '503', '504']);

function decodeMessage(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
