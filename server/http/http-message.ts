/**
 * A request and its answer in either version of HTTP, and the few things that differ: in HTTP/1.1 (RFC 9112) a request
 * has the connection to itself, in HTTP/2 (RFC 9113) it is one stream of many.
 */
import { IncomingMessage, type OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { type Http2ServerRequest, Http2ServerResponse, type Http2Session } from 'node:http2';
import type { Socket } from 'node:net';

export type HttpRequest = IncomingMessage | Http2ServerRequest;
export type HttpResponse = ServerResponse | Http2ServerResponse;

/** What a request came over: one connection. */
export type HttpConnection = Socket | Http2Session;

/** Undefined when the connection is gone already. */
export function connectionOf(request: HttpRequest): HttpConnection | undefined {
  return request instanceof IncomingMessage ? request.socket : request.stream.session;
}

/**
 * Ends a request without a verdict: what was answered so far is visibly incomplete. In HTTP/1.1 the connection goes,
 * in HTTP/2 the stream alone, reset with INTERNAL_ERROR.
 */
export function breakOff(request: HttpRequest): void {
  if (request instanceof IncomingMessage) request.socket.destroy();
  else request.stream.destroy(new Error('the request was broken off'));
}

/** The answer is complete, and the rest of the request is not wanted (RFC 9113 section 8.1: NO_ERROR). */
export function refuseRest(request: HttpRequest): void {
  if (request instanceof IncomingMessage) request.socket.destroy();
  else request.stream.close();
}

/** True when the body came whole. An HTTP/2 stream that was reset ends as one that is complete does. */
export function isComplete(request: HttpRequest): boolean {
  if (request instanceof IncomingMessage) return request.complete;
  return !request.aborted && (request.readableEnded || request.stream.endAfterHeaders);
}

/** True when the request announces a body (RFC 9112 section 6; in HTTP/2 all that does not end with its headers). */
export function announcesBody(request: HttpRequest): boolean {
  if (!(request instanceof IncomingMessage)) return !request.stream.endAfterHeaders;
  const length = request.headers['content-length'];
  return (
    request.headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0')
  );
}

/** The connection takes no further request after this answer. In HTTP/2 a drain says so with GOAWAY. */
export function closeAfter(response: HttpResponse): void {
  if (response instanceof ServerResponse) response.shouldKeepAlive = false;
}

export function writeHead(
  response: HttpResponse,
  status: number,
  headers: OutgoingHttpHeaders,
): void {
  if (response instanceof ServerResponse) response.writeHead(status, headers);
  else response.writeHead(status, headers);
}

/** True when nothing can be sent to the client any more. */
export function isGone(response: HttpResponse): boolean {
  return response instanceof Http2ServerResponse ? response.stream.destroyed : response.destroyed;
}

/** Bytes of the answer that wait for the client to read. */
export function unreadBytes(request: HttpRequest, response: HttpResponse): number {
  if (request instanceof IncomingMessage) {
    return response.writableLength + request.socket.writableLength;
  }
  return request.stream.writableLength;
}
