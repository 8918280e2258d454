import { QuorateError } from '../../backends/contract/errors.js';
import type { Repository } from '../../backends/contract/repository.js';
import type { AccessToken, Accounts, NewToken } from '../auth/accounts.js';
import { creationProblem, mayAdministerServer } from '../auth/access-rules.js';
import type { Authorizer } from '../auth/authorizer.js';
import type { Principal, RepositoryAction, TokenScope } from '../auth/principal.js';
import { checkNewName } from '../core/repository-name.js';

/*
 * Who may do what over the admin API; no route decides anything itself. Each function returns when the action is
 * allowed and throws `unauthenticated`, `permission-denied` or `not-found` when it is not.
 */

const scopeRank: Record<TokenScope, number> = { read: 1, write: 2, admin: 3 };

/** Everything about the server itself: users, other people's keys and tokens, status, locks, its disk. */
export function requireServerAdmin(principal: Principal, what: string): void {
  if (mayAdministerServer(principal)) return;
  requireSomebody(principal);
  throw new QuorateError(
    'permission-denied',
    principal.kind === 'user' && principal.admin
      ? `${what} needs a token of scope admin that is not limited to some repositories`
      : `${what} needs a server administrator`,
  );
}

/** What is about accounts: keys and tokens. A machine has none, and no business with those of others. */
export function requireAccount(principal: Principal): void {
  requireSomebody(principal);
  if (principal.kind === 'machine') {
    throw new QuorateError('permission-denied', `${principal.name} is no user, and has no account`);
  }
}

/**
 * Whose keys or tokens are listed: those of `user` where one is named, else everybody's for server administrators and
 * one's own for others. Undefined: everybody's.
 */
export function listedOwner(principal: Principal, user: string | undefined): string | undefined {
  requireAccount(principal);
  const own = principal.kind === 'user' ? principal.name : undefined;
  const wanted = user ?? (mayAdministerServer(principal) ? undefined : own);
  if (wanted !== undefined) requireAccountReader(principal, wanted);
  return wanted;
}

/** Throws `not-found` for a name that no user has: nobody mistakes a slip of the pen for an empty list. */
export async function requireUser(
  accounts: Pick<Accounts, 'getUser'>,
  name: string,
): Promise<void> {
  if ((await accounts.getUser(name)) !== undefined) return;
  throw new QuorateError('not-found', `there is no user ${name}`);
}

/** Looking at the keys and tokens of `user`: the user and server administrators. */
function requireAccountReader(principal: Principal, user: string): void {
  if (principal.kind === 'user' && principal.name === user) return;
  requireServerAdmin(principal, "seeing other people's keys and tokens");
}

/**
 * Changing the SSH keys of `user`. A key carries all the rights of its user, so a user needs a token that does too:
 * else a stolen read-only token could make itself a key that writes.
 */
export function requireKeyWriter(principal: Principal, user: string): void {
  if (principal.kind === 'user' && principal.name === user) {
    if (hasFullAuthority(principal)) return;
    throw new QuorateError(
      'permission-denied',
      'changing SSH keys needs a token of scope admin that is not limited to some repositories',
    );
  }
  requireServerAdmin(principal, "changing other people's keys");
}

/**
 * Creating a token. A user may create own tokens that can do no more than the token in use: no higher scope, no
 * other repositories, no longer life (`inUse` is that token's record).
 */
export function requireTokenCreator(
  principal: Principal,
  wanted: NewToken,
  inUse: AccessToken | undefined,
): void {
  if (mayAdministerServer(principal)) return;
  if (principal.kind !== 'user' || principal.name !== wanted.user) {
    requireServerAdmin(principal, 'creating tokens for other people');
    return;
  }
  if (principal.via.type === 'key') return;
  const { scope, repositoryPattern } = principal.via;
  if (scopeRank[wanted.scope] > scopeRank[scope]) {
    throw new QuorateError(
      'permission-denied',
      `the token in use has scope ${scope} and can create tokens of at most that scope`,
    );
  }
  if (repositoryPattern !== undefined && wanted.repositoryPattern !== repositoryPattern) {
    throw new QuorateError(
      'permission-denied',
      `the token in use is limited to ${repositoryPattern} and can create only tokens limited to the same`,
    );
  }
  const end = inUse?.expiresAtMs;
  if (end !== undefined && !(wanted.expiresAtMs !== undefined && wanted.expiresAtMs <= end)) {
    throw new QuorateError(
      'permission-denied',
      `the token in use expires at ${new Date(end).toISOString()} and can create only tokens that expire by then`,
    );
  }
}

/** Revoking `token`: itself always; another of the same user with full authority; anybody's as administrator. */
export function requireTokenRevoker(principal: Principal, token: AccessToken): void {
  if (principal.kind === 'user' && principal.name === token.user) {
    const itself = principal.via.type === 'token' && principal.via.tokenId === token.id;
    if (itself || hasFullAuthority(principal)) return;
    throw new QuorateError(
      'permission-denied',
      'revoking another token needs a token of scope admin that is not limited to some repositories',
    );
  }
  requireServerAdmin(principal, "revoking other people's tokens");
}

/** The action on a repository, as the one authorizer judges it. Narrows: an allowed action has its repository. */
export function requireOnRepository(
  authorizer: Authorizer,
  principal: Principal,
  wanted: {
    readonly action: Exclude<RepositoryAction, 'create'>;
    readonly name: string;
    readonly repository: Repository | undefined;
  },
): Repository {
  const { action, name, repository } = wanted;
  const decision = authorizer.decide(principal, action, name, repository);
  if (!decision.allowed) refuse(decision, name);
  if (repository === undefined) throw noSuchRepository(name);
  return repository;
}

/** An explicit creation: allowed by the right to create, whether or not pushes may create repositories. */
export function requireRepositoryCreator(principal: Principal, name: string): void {
  requireSomebody(principal);
  checkNewName(name);
  const problem = creationProblem(principal, name);
  if (problem !== undefined) throw new QuorateError('permission-denied', problem);
}

/** The same words whether it is hidden or absent. */
export function noSuchRepository(name: string): QuorateError {
  return new QuorateError('not-found', `there is no repository ${name}`, {
    details: { repository: name },
  });
}

/** Every change needs somebody: said before a byte of the body is read. */
export function requireSomebody(principal: Principal): void {
  if (principal.kind === 'anonymous') {
    throw new QuorateError(
      'unauthenticated',
      'sign in with a token: "Authorization: Bearer TOKEN", or Basic with the token as the password',
    );
  }
}

function refuse(
  decision: { readonly because: 'sign-in' | 'hidden' | 'denied'; readonly reason: string },
  name: string,
): never {
  switch (decision.because) {
    case 'sign-in':
      throw new QuorateError('unauthenticated', decision.reason);
    case 'hidden':
      throw noSuchRepository(name);
    case 'denied':
      throw new QuorateError('permission-denied', decision.reason);
  }
}

/** The principal stands for all that its user may do. */
function hasFullAuthority(principal: Extract<Principal, { kind: 'user' }>): boolean {
  const { via } = principal;
  return via.type === 'key' || (via.scope === 'admin' && via.repositoryPattern === undefined);
}
