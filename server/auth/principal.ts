import type { AccessLevel } from '../../backends/contract/repository.js';

export type TokenScope = 'read' | 'write' | 'admin';

/** Who is asking, as the listeners found out. Nothing downstream looks at credentials again. */
export type Principal =
  | { readonly kind: 'anonymous' }
  | {
      readonly kind: 'user';
      readonly name: string;
      /** Server administrator: everything, within the token's scope. */
      readonly admin: boolean;
      /** May create repositories (administrators always may). */
      readonly canCreate: boolean;
      readonly via: PrincipalSource;
    }
  /** Everybody is this under `--no-auth` (loopback only): everything is allowed. */
  | { readonly kind: 'trusted' };

export type PrincipalSource =
  | { readonly type: 'key'; readonly fingerprint: string }
  | {
      readonly type: 'token';
      /** Public id of the token, never the token. */
      readonly tokenId: string;
      readonly scope: TokenScope;
      /** Glob over repository names (`team/*`); undefined: all. */
      readonly repositoryPattern: string | undefined;
    };

export type RepositoryAction = AccessLevel | 'create';

/** Name for logs, the audit trail and the push log. */
export function principalName(principal: Principal): string {
  return principal.kind === 'user' ? principal.name : principal.kind;
}
