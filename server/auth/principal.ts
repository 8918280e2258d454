import type { Pusher } from '../../backends/contract/pipeline.js';
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
      /** Absent: in no group, and without grants on patterns. As of the sign-in. */
      readonly membership?: Membership;
      readonly recalled?: Recalled;
    }
  /** A program with rights of its own on some repositories, and none on the server. */
  | {
      readonly kind: 'machine';
      /** For logs and the trails; holds a colon, which no user name does: `deploy-key:SHA256:...`. */
      readonly name: string;
      readonly reach: readonly Reach[];
      /** What branch rules may call it besides its name: `oidc:ci`. */
      readonly aliases?: readonly string[];
      readonly recalled?: Recalled;
    }
  /** Everybody is this under `--no-auth` (loopback only): everything is allowed. */
  | { readonly kind: 'trusted' };

/** Found out from what was read before, since the coordinator cannot be reached: good for eventual reads only. */
type Recalled = true;

export function isRecalled(principal: Principal): boolean {
  return 'recalled' in principal;
}

/** What a user has besides grants by name on single repositories. */
export interface Membership {
  /** Names of groups, without `@`. */
  readonly groups: readonly string[];
  /** Grants to the user, or to one of the groups, on the repositories that a pattern means. */
  readonly grants: readonly PatternLevel[];
}

/** Repositories that a machine reaches, and how far. */
export type Reach = { readonly repositoryId: string; readonly level: AccessLevel } | PatternLevel;

export interface PatternLevel {
  /** As in `repository-pattern.ts`: `team/*`. */
  readonly pattern: string;
  readonly level: AccessLevel;
}

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
  return 'name' in principal ? principal.name : principal.kind;
}

/** What branch rules and hooks know of the principal. */
export function pusherOf(principal: Principal): Pusher {
  const membership = principal.kind === 'user' ? principal.membership : undefined;
  const aliases = principal.kind === 'machine' ? (principal.aliases ?? []) : [];
  return { name: principalName(principal), groups: membership?.groups ?? [], aliases };
}
