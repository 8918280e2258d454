/** An answer as bytes, for a client whose request is not read or could not be. */
export function rawReply(status: string, sentence: string, headers: string): string {
  const body = `${sentence}\n`;
  return `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}Connection: close\r\n\r\n${body}`;
}

/** What the HTTP parser's complaints are in HTTP's terms; undefined for what is no request at all (TLS errors). */
export function malformedReply(
  code: string,
): readonly [status: string, sentence: string] | undefined {
  const known = malformedReplies[code];
  if (known !== undefined) return known;
  if (/^(?:ERR_SSL_|ERR_TLS_|ECONNRESET|EPIPE)/.test(code)) return undefined;
  return ['400 Bad Request', 'This is not a valid HTTP/1.1 request.'];
}

const malformedReplies: Readonly<Record<string, readonly [string, string]>> = {
  HPE_HEADER_OVERFLOW: [
    '431 Request Header Fields Too Large',
    'The request headers are too large.',
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'The request headers took too long.'],
};
