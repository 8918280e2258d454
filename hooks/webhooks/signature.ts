import { createHmac } from 'node:crypto';

/**
 * The value of `X-Quorate-Signature-256`: `sha256=` and the HMAC-SHA256 (RFC 2104) of the body's bytes, lower-case
 * hexadecimal. The body holds the delivery's id and time, so that an old one that comes again can be told.
 */
export function signatureOf(secret: string, body: Uint8Array): string {
  return `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`;
}
