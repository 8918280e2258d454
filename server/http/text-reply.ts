import type { Writable } from 'node:stream';
import type { HttpRefusal } from './error-map.js';
import type { HttpExchange } from './http-exchange.js';
import {
  announcesBody,
  closeAfter,
  type HttpRequest,
  type HttpResponse,
  refuseRest,
  writeHead,
} from './http-message.js';
import { drainRequest } from './request-body.js';

/** As git http-backend sends them, so that no proxy keeps an answer. */
export const noCacheHeaders = {
  Expires: 'Fri, 01 Jan 1980 00:00:00 GMT',
  Pragma: 'no-cache',
  'Cache-Control': 'no-cache, max-age=0, must-revalidate',
} as const;

/** A connection is worth keeping for at most this much of an unread body. git buffers 1 MiB before it chunks. */
const keepAliveBytes = 1024 ** 2;

/** What a refused client may still have in flight: generous for curl, which stops at the status; nothing for a flood. */
const drainBounds = { maxBytes: 64 * 1024 ** 2, timeoutMs: 10_000 } as const;

interface TextReply {
  readonly status: number;
  /** One sentence or more; a line feed is added. */
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}

interface BodyReply {
  readonly status: number;
  readonly body: Buffer;
  readonly headers: Readonly<Record<string, string>>;
}

/** Answers with plain text, as `replyBody` does. */
export function replyText(
  request: HttpRequest,
  response: HttpResponse,
  { status, text, headers }: TextReply,
): Promise<void> {
  return replyBody(request, response, {
    status,
    body: Buffer.from(`${text}\n`),
    headers: {
      'Content-Type': 'text/plain; charset=utf-8',
      'X-Content-Type-Options': 'nosniff',
      ...headers,
    },
  });
}

/**
 * Answers, and takes what the client is still sending before the connection is closed.
 * Resolves when the answer is handed over and the request is read or given up.
 */
export async function replyBody(
  request: HttpRequest,
  response: HttpResponse,
  reply: BodyReply,
): Promise<void> {
  const { body } = reply;
  const unread = announcesBody(request) && !request.readableEnded;
  if (unread && !keepsConnection(request, reply.status)) closeAfter(response);
  writeHead(response, reply.status, {
    'Content-Length': body.length,
    ...noCacheHeaders,
    ...reply.headers,
  });
  const stream: Writable = response;
  // Who was silent for too long is not waited for once more.
  if (unread && reply.status === 408) {
    stream.end(body, () => refuseRest(request));
    return;
  }
  if (!unread) {
    stream.end(body);
    return;
  }
  stream.write(body);
  const drained = await drainRequest(request, drainBounds);
  stream.end();
  if (!drained) refuseRest(request);
}

/** As `replyText`; the answer carries the request id, by which its log line is found. */
export function replyRefusal(
  { request, response, requestId }: HttpExchange,
  refusal: HttpRefusal,
): Promise<void> {
  return replyText(request, response, {
    status: refusal.status,
    text: refusal.message,
    headers: { 'X-Request-Id': requestId, ...refusal.headers },
  });
}

/** Not with who was silent (RFC 9110 section 15.5.9). A client that waits for 100 Continue and gets a refusal may or may not send its body: only a new connection is clear. */
function keepsConnection(request: HttpRequest, status: number): boolean {
  const length = request.headers['content-length'];
  return (
    status !== 408 &&
    request.headers.expect === undefined &&
    length !== undefined &&
    Number(length) <= keepAliveBytes
  );
}
