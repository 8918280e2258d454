/** Credentials of a request (RFC 7617 Basic, RFC 6750 Bearer). Pure. */

export type Credentials =
  | { readonly kind: 'none' }
  | { readonly kind: 'token'; readonly secret: string; readonly scheme: 'basic' | 'bearer' }
  | { readonly kind: 'malformed' };

/**
 * Reads an Authorization header. With Basic the password is the token; the user name says nothing: the token alone
 * decides who it is, since clients fill in names of their own (`git`, `x-token`, ...), as on the large hosting sites.
 */
export function parseAuthorization(header: string | undefined): Credentials {
  if (header === undefined) return { kind: 'none' };
  const match = /^(basic|bearer) +([A-Za-z0-9._~+/-]+=*)$/i.exec(header);
  const value = match?.[2];
  if (match === null || value === undefined) return { kind: 'malformed' };
  if (match[1]?.toLowerCase() === 'bearer')
    return { kind: 'token', secret: value, scheme: 'bearer' };
  const pair = Buffer.from(value, 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  if (colon < 0 || colon === pair.length - 1) return { kind: 'malformed' };
  return { kind: 'token', secret: pair.slice(colon + 1), scheme: 'basic' };
}
