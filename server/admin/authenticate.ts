import { asQuorateError, QuorateError } from '../../backends/contract/errors.js';
import type { Accounts, SignInOptions } from '../auth/accounts.js';
import type { LocalAdmin } from '../auth/local-admin.js';
import type { Principal } from '../auth/principal.js';
import { parseAuthorization } from '../http/credentials.js';

/** A JSON Web Token of 8 KiB, in base64 once more with Basic; what follows is not read. */
const maxHeaderLength = 12 * 1024;

export interface AuthenticateOptions extends SignInOptions {
  /** Asked while the coordinator does not say who somebody is. Absent: then nobody is signed in. */
  readonly localAdmin?: Pick<LocalAdmin, 'principalOf'>;
}

/**
 * Who asks, from the `Authorization` header: `Bearer TOKEN` (RFC 6750) or `Basic` with the token as the password and
 * any user name (RFC 7617). No header is `anonymous`. Throws `unauthenticated` for credentials that are not good, so
 * that nobody mistakes a mistyped token for a missing right.
 */
export async function authenticate(
  accounts: Accounts,
  header: string | undefined,
  { localAdmin, ...how }: AuthenticateOptions = {},
): Promise<Principal> {
  if (header === undefined) return { kind: 'anonymous' };
  const credentials = parseAuthorization(header.slice(0, maxHeaderLength));
  if (credentials.kind !== 'token') {
    throw new QuorateError(
      'unauthenticated',
      'the Authorization header has to be "Bearer TOKEN", or Basic with the token as the password',
    );
  }
  const { secret } = credentials;
  const principal = await accounts.authenticateToken(secret, how).catch((error: unknown) => {
    const isLost = asQuorateError(error).code === 'unavailable';
    const known = isLost ? localAdmin?.principalOf(secret) : undefined;
    if (known === undefined) throw error;
    return known;
  });
  if (principal === undefined) {
    throw new QuorateError(
      'unauthenticated',
      'the token is unknown, revoked or expired, or its user is disabled',
    );
  }
  return principal;
}
