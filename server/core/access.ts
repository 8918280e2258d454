import assert from 'node:assert/strict';
import { QuorateError } from '../../backends/contract/errors.js';
import {
  isSameRepository,
  type NewRepository,
  type Repository,
  type RepositoryRegistry,
} from '../../backends/contract/repository.js';
import type { Authorizer, Decision } from '../auth/authorizer.js';
import {
  isRecalled,
  type Principal,
  principalName,
  type RepositoryAction,
} from '../auth/principal.js';
import type { PushCommand } from '../wire/command-list.js';
import { isZeroOid } from '../wire/oid.js';
import { askingCoordinator } from './coordinator-lost.js';
import type { Foreseen, GitRequest } from './git-request.js';
import { newObjectFormat } from './git-context.js';
import { checkNewName } from './repository-name.js';

/** Looks repositories up and lets in whom the authorizer lets in. The only place in core that asks it. */
export class Access {
  readonly #repositories: RepositoryRegistry;
  readonly #authorizer: Authorizer;

  constructor(repositories: RepositoryRegistry, authorizer: Authorizer) {
    this.#repositories = repositories;
    this.#authorizer = authorizer;
  }

  /** Looks a repository up for somebody who is let in later, or not. */
  foresee(asked: Foreseen, name: string): Promise<Repository | undefined> {
    const found =
      asked.service === 'git-receive-pack'
        ? this.#getForPushing(name)
        : this.#repositories.getForReading(name, { recalled: false, refs: readsRefs(asked) });
    found.catch(() => undefined);
    return found;
  }

  /** Throws `unauthenticated`, `permission-denied`, `not-found`. */
  async forReading(
    request: Foreseen & Pick<GitRequest, 'principal'>,
    name: string,
    foreseen?: Promise<Repository | undefined>,
  ): Promise<Repository> {
    const { principal } = request;
    const recalled = isRecalled(principal);
    const refs = readsRefs(request);
    const repository = await askingCoordinator(
      'git-upload-pack',
      () =>
        (recalled ? undefined : foreseen) ??
        this.#repositories.getForReading(name, { recalled, refs }),
    );
    this.#demand({ principal, action: 'read', name }, repository);
    if (repository === undefined) throw notFound(name);
    return repository;
  }

  /** Undefined when the push may create the repository. Throws as `forReading` does. */
  async forPushing(
    principal: Principal,
    name: string,
    foreseen?: Promise<Repository | undefined>,
  ): Promise<Repository | undefined> {
    assert(!isRecalled(principal), 'who pushes is known from the coordinator');
    // git's first request of every push over HTTP comes so.
    demanded(this.#authorizer.decideAnyPush(principal), name);
    const repository = await askingCoordinator(
      'git-receive-pack',
      () => foreseen ?? this.#getForPushing(name),
    );
    const action = repository === undefined ? 'create' : 'write';
    this.#demand({ principal, action, name }, repository);
    if (repository === undefined) checkNewName(name);
    return repository;
  }

  /**
   * The repository that a push was opened on, as it is when the commands are there; created now if it was none then.
   * Two first pushes may meet: the second one then pushes to what the first one made, if it may.
   */
  async confirmPush(
    {
      principal,
      name,
      opened,
      isFresh,
    }: {
      readonly principal: Principal;
      readonly name: string;
      readonly opened: Repository | undefined;
      /** It was opened for these commands, and just now. */
      readonly isFresh: boolean;
    },
    commands: readonly PushCommand[],
  ): Promise<Repository> {
    if (isFresh && opened !== undefined) return opened;
    const current = await this.forPushing(principal, name);
    const isSame = current !== undefined && (!opened || isSameRepository(opened, current));
    if (opened !== undefined && !isSame) throw notFound(name);
    if (current !== undefined) return current;
    try {
      const repository: NewRepository = {
        name,
        defaultBranch: defaultBranch(commands),
        objectFormat: newObjectFormat,
        settings: {},
        access: {
          public: false,
          grants: principal.kind === 'user' ? { [principal.name]: 'admin' } : {},
        },
      };
      return await this.#repositories.create(repository, principalName(principal));
    } catch (error) {
      if (!(error instanceof QuorateError && error.code === 'already-exists')) throw error;
      const made = await this.forPushing(principal, name);
      // Still none of that name: it would nest with another repository, which the error says.
      if (made === undefined) throw error;
      return made;
    }
  }

  #getForPushing(name: string): Promise<Repository | undefined> {
    return this.#repositories.getForPushing?.(name) ?? this.#repositories.get(name);
  }

  #demand(
    { principal, action, name }: { principal: Principal; action: RepositoryAction; name: string },
    repository: Repository | undefined,
  ): void {
    demanded(this.#authorizer.decide(principal, action, name, repository), name);
  }
}

/**
 * Whether the answer to a request needs the refs, and once: a session may go on to ask for them much later, and the
 * capabilities of v2 tell nothing of them.
 */
function readsRefs({ mode, protocol }: Foreseen): boolean {
  return mode === 'stateless' || (mode === 'advertise' && protocol !== 2);
}

function demanded(decision: Decision | undefined, name: string): void {
  if (decision?.allowed === false) throw refusal(decision, name);
}

function refusal(decision: Extract<Decision, { allowed: false }>, name: string): QuorateError {
  switch (decision.because) {
    case 'sign-in':
      return new QuorateError('unauthenticated', decision.reason);
    case 'denied':
      return new QuorateError('permission-denied', decision.reason);
    case 'hidden':
      // The reason would tell apart what is to look alike.
      return notFound(name);
  }
}

function notFound(name: string): QuorateError {
  return new QuorateError('not-found', `repository '${name}' not found`);
}

/** The branch that HEAD will name: the usual one if it is pushed, else the first branch that is. */
function defaultBranch(commands: readonly PushCommand[]): string {
  const prefix = 'refs/heads/';
  const branches = commands
    .filter(({ ref, newOid }) => ref.startsWith(prefix) && !isZeroOid(newOid))
    .map(({ ref }) => ref.slice(prefix.length));
  const usual = ['main', 'master'].find((branch) => branches.includes(branch));
  return usual ?? branches[0] ?? 'main';
}
