import type { AccessLevel, Repository } from '../../backends/contract/repository.js';
import type { Authorizer, Decision } from './authorizer.js';
import type { Principal, Reach, RepositoryAction } from './principal.js';
import { repositoryPatternMatches } from './repository-pattern.js';

type User = Extract<Principal, { kind: 'user' }>;

/**
 * The rules, in order:
 *  1. `trusted` (`--no-auth`) may do everything.
 *  2. What a user may do with a repository is the highest of: `admin` for server administrators, the grants on it to
 *     the user and to the user's groups, and the same on patterns that mean it. A token caps that at its scope and takes it away outside its repository pattern.
 *  3. A public repository may be read by everybody, whatever the credentials.
 *  4. Who does not sign in pushes nowhere: that needs no look at what there is of the name, and tells nothing of it.
 *  5. Who may not even read a repository is told what somebody is told for whom there is none: anonymous to sign in,
 *     everybody else that it does not exist.
 *
 * `autoCreate` says whether a push may create the repository that it names. An explicit creation (the admin API) asks
 * `creationProblem` itself, whatever that setting says.
 *
 * The `reason` of a `hidden` decision is for logs. Sending it would tell apart what `hidden` is to keep alike.
 */
export function createAuthorizer(options: { readonly autoCreate: boolean }): Authorizer {
  return {
    decideAnyPush: ({ kind }) => (kind === 'anonymous' ? signInToPush : undefined),
    decide(principal, action, name, repository) {
      if (repository === undefined) {
        return action === 'create'
          ? decideCreation(principal, name, options.autoCreate)
          : unseen(principal, 'there is no such repository');
      }
      return action === 'create'
        ? refuseTakenName(principal, repository)
        : decideAccess(principal, action, repository);
    },
  };
}

/** Nobody pushes, or creates, without signing in. */
const signInToPush: Decision = {
  allowed: false,
  because: 'sign-in',
  reason: 'sign in to push',
};

/**
 * Why `principal` may not create a repository of that name, in a sentence that may be shown to it; undefined when it
 * may. Creating needs the right to create (of any name, or by a grant `admin` on a pattern that means it), and of a token scope `write` and a pattern that matches.
 */
export function creationProblem(principal: Principal, name: string): string | undefined {
  switch (principal.kind) {
    case 'trusted':
      return undefined;
    case 'anonymous':
      return 'sign in to create repositories';
    case 'machine':
      return `${principal.name} may not create repositories`;
    case 'user': {
      // Who administers a pattern administers what is still to come below it.
      const administers = patternLevel(principal, name) >= rank.admin;
      if (!principal.admin && !principal.canCreate && !administers) {
        return `${principal.name} may not create repositories`;
      }
      if (principal.via.type === 'key') return undefined;
      if (rank[principal.via.scope] < rank.write) {
        return 'this token is for reading only (scope read)';
      }
      return patternCovers(principal, name)
        ? undefined
        : 'this token is for other repositories (its pattern does not match)';
    }
  }
}

/**
 * Whether the principal may administer the server: users, every repository, locks, status. A token must have scope
 * `admin` and no repository pattern: a pattern says that the token is for some repositories, not for the server.
 */
export function mayAdministerServer(principal: Principal): boolean {
  switch (principal.kind) {
    case 'trusted':
      return true;
    case 'anonymous':
    case 'machine':
      return false;
    case 'user':
      if (!principal.admin) return false;
      return (
        principal.via.type === 'key' ||
        (principal.via.scope === 'admin' && principal.via.repositoryPattern === undefined)
      );
  }
}

/** Levels as numbers; each includes the ones below it. Token scopes have the same names and meaning. */
const rank = { none: 0, read: 1, write: 2, admin: 3 } as const;

function decideAccess(principal: Principal, action: AccessLevel, repository: Repository): Decision {
  const level = levelOf(principal, repository);
  if (level >= rank[action]) return { allowed: true };
  if (level === rank.none) return unseen(principal, 'the repository is private');
  if (principal.kind === 'anonymous') {
    return {
      allowed: false,
      because: 'sign-in',
      reason: `sign in to ${verb[action]} ${repository.name}`,
    };
  }
  return { allowed: false, because: 'denied', reason: denial(principal, action, repository) };
}

const verb = { read: 'read', write: 'push to', admin: 'administer' } as const;

function decideCreation(principal: Principal, name: string, autoCreate: boolean): Decision {
  // A refused creation looks like a repository that may not be seen, or a push would tell which names are taken.
  if (!autoCreate)
    return unseen(principal, 'there is no such repository, and pushes do not create any');
  const problem = creationProblem(principal, name);
  return problem === undefined ? { allowed: true } : unseen(principal, problem);
}

function refuseTakenName(principal: Principal, repository: Repository): Decision {
  if (levelOf(principal, repository) === rank.none) {
    return unseen(principal, 'the repository exists and is private');
  }
  return { allowed: false, because: 'denied', reason: `${repository.name} exists already` };
}

function unseen(principal: Principal, reason: string): Decision {
  // What somebody unknown is told is sent as it stands: one sentence for all that is not public.
  return principal.kind === 'anonymous'
    ? {
        allowed: false,
        because: 'sign-in',
        reason: 'sign in: there is no public repository of this name',
      }
    : { allowed: false, because: 'hidden', reason };
}

function levelOf(principal: Principal, repository: Repository): number {
  const openLevel = repository.access.public ? rank.read : rank.none;
  switch (principal.kind) {
    case 'trusted':
      return rank.admin;
    case 'anonymous':
      return openLevel;
    case 'machine':
      return Math.max(
        openLevel,
        ...principal.reach.map((reach) => reachedLevel(reach, repository)),
      );
    case 'user':
      return Math.max(openLevel, cappedLevel(principal, repository));
  }
}

function reachedLevel(reach: Reach, { id, name }: Repository): number {
  const meant =
    'pattern' in reach ? repositoryPatternMatches(reach.pattern, name) : reach.repositoryId === id;
  return meant ? rank[reach.level] : rank.none;
}

function cappedLevel(user: User, repository: Repository): number {
  const own = ownLevel(user, repository);
  if (user.via.type === 'key') return own;
  if (!patternCovers(user, repository.name)) return rank.none;
  return Math.min(own, rank[user.via.scope]);
}

function ownLevel(user: User, repository: Repository): number {
  if (user.admin) return rank.admin;
  const { groups = [] } = user.membership ?? {};
  return Math.max(
    patternLevel(user, repository.name),
    ...[user.name, ...groups.map((group) => `@${group}`)].map((subject) =>
      grantedLevel(repository, subject),
    ),
  );
}

function grantedLevel({ access: { grants } }: Repository, subject: string): number {
  // `hasOwn`: a user may be called `constructor`.
  const grant = Object.hasOwn(grants, subject) ? grants[subject] : undefined;
  return grant === undefined ? rank.none : rank[grant];
}

/** The highest grant on a pattern that means the name. */
function patternLevel(user: User, name: string): number {
  const { grants = [] } = user.membership ?? {};
  const matching = grants.filter(({ pattern }) => repositoryPatternMatches(pattern, name));
  return Math.max(rank.none, ...matching.map(({ level }) => rank[level]));
}

function patternCovers(user: User, name: string): boolean {
  if (user.via.type === 'key' || user.via.repositoryPattern === undefined) return true;
  return repositoryPatternMatches(user.via.repositoryPattern, name);
}

function denial(
  principal: Principal,
  action: RepositoryAction & AccessLevel,
  repository: Repository,
): string {
  const what = `${verb[action]} ${repository.name}`;
  if (principal.kind === 'machine') return `${principal.name} may not ${what}`;
  if (principal.kind !== 'user') return `not allowed to ${what}`;
  if (ownLevel(principal, repository) < rank[action]) return `${principal.name} may not ${what}`;
  return `this token may not ${what}: its scope or its repository pattern does not reach that far`;
}
