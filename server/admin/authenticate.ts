import { QuorateError } from '../../backends/contract/errors.js';
import type { Accounts } from '../auth/accounts.js';
import type { Principal } from '../auth/principal.js';

/** A token with its framing is far shorter; longer headers are refused unread. */
const maxHeaderLength = 1024;

/**
 * Who asks, from the `Authorization` header: `Bearer TOKEN` (RFC 6750) or `Basic` with the token as the password and
 * any user name (RFC 7617). No header is `anonymous`. Throws `unauthenticated` for credentials that are not good, so
 * that nobody mistakes a mistyped token for a missing right.
 */
export async function authenticate(
  accounts: Accounts,
  header: string | undefined,
): Promise<Principal> {
  if (header === undefined) return { kind: 'anonymous' };
  const secret = header.length > maxHeaderLength ? undefined : secretIn(header);
  if (secret === undefined) {
    throw new QuorateError(
      'unauthenticated',
      'the Authorization header has to be "Bearer TOKEN", or Basic with the token as the password',
    );
  }
  const principal = await accounts.authenticateToken(secret);
  if (principal === undefined) {
    throw new QuorateError(
      'unauthenticated',
      'the token is unknown, revoked or expired, or its user is disabled',
    );
  }
  return principal;
}

function secretIn(header: string): string | undefined {
  const match = /^(bearer|basic) +([A-Za-z0-9._~+/-]+=*) *$/i.exec(header);
  const credentials = match?.[2];
  if (match === null || credentials === undefined) return undefined;
  if (match[1]?.toLowerCase() === 'bearer') return credentials;
  const decoded = Buffer.from(credentials, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  const password = colon === -1 ? '' : decoded.slice(colon + 1);
  return password === '' ? undefined : password;
}
