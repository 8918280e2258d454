/*
 *   obj-id = 40*(HEXDIG) / 64*(HEXDIG)    ; SHA-1, SHA-256
 */
import { excerpt, WireError } from './wire-error.js';

const pattern = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** A lower-case object id. Throws WireError `malformed`. */
export function parseOid(text: string): string {
  if (!pattern.test(text)) throw new WireError('malformed', `bad object id '${excerpt(text)}'`);
  return text;
}

/** True for the id of no object, which stands for "no ref" in a push. */
export function isZeroOid(oid: string): boolean {
  return /^0+$/.test(oid);
}
