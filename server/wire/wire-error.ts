/**
 * Why bytes from a peer were not taken. wire/ imports nothing, so it has its own error; `server/core` and the
 * listeners map it to theirs.
 *
 * - `malformed`: breaks the grammar.
 * - `truncated`: the stream ended inside a packet or a section.
 * - `too-large`: breaks a bound on bytes or counts that the caller set.
 * - `unsupported`: well-formed, and not offered here.
 */
export type WireErrorKind = 'malformed' | 'truncated' | 'too-large' | 'unsupported';

export class WireError extends Error {
  readonly kind: WireErrorKind;

  constructor(kind: WireErrorKind, message: string) {
    super(message);
    this.name = 'WireError';
    this.kind = kind;
  }
}

/** A peer's text inside an error message: one line, printable, at most 80 characters. */
export function excerpt(text: string): string {
  const printable = text.replace(/[^\x20-\x7e]/g, '?');
  return printable.length > 80 ? `${printable.slice(0, 77)}...` : printable;
}
