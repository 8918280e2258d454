import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { AccessLevel, Repository } from '../../../backends/contract/repository.js';
import { principalName } from '../../auth/principal.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { branch, nothing, scope, settings } from './fields.js';
import { openRepository, shownRepository } from './repositories.js';

/** Grants in one repository's record: it has to stay small (about 1 KB per repository in the steady state). */
const maxGrants = 1000;

/** Who may do what with a repository, and how it behaves: for those who administer it. */
export function repositoryAccessEndpoints(
  options: Pick<AdminApiOptions, 'backend' | 'authorizer' | 'directory'>,
): Endpoint[] {
  const { backend, directory } = options;
  const { repositories } = backend;

  const change = endpoint({
    method: 'patch',
    path: '/repositories/:repository',
    action: 'repository.set',
    input: z.strictObject({ settings: settings.optional(), public: z.boolean().optional() }),
    run: async (call, input) => {
      const repository = await openRepository(options, call, 'admin');
      const changed = await repositories.update(
        repository,
        ({ access }) => ({
          ...(input.settings === undefined ? {} : { settings: input.settings }),
          ...(input.public === undefined ? {} : { access: { ...access, public: input.public } }),
        }),
        principalName(call.principal),
      );
      return { status: 200, body: { repository: administered(changed) } };
    },
  });

  const setHead = endpoint({
    method: 'put',
    path: '/repositories/:repository/head',
    action: 'repository.set-head',
    input: z.strictObject({ branch }),
    run: async (call, input) => {
      const repository = await openRepository(options, call, 'admin');
      await repositories.setHead(repository, input.branch, principalName(call.principal));
      return { status: 200, body: { head: input.branch } };
    },
  });

  const grant = endpoint({
    method: 'put',
    path: '/repositories/:repository/grants/:user',
    action: 'repository.grant',
    input: z.strictObject({ level: scope }),
    run: async (call, { level }) => {
      const repository = await openRepository(options, call, 'admin');
      const user = call.param('user');
      await directory.requireSubject(user);
      const changed = await repositories.update(repository, ({ access }) => ({
        access: { ...access, grants: withGrant(access.grants, user, level) },
      }));
      return { status: 200, body: { repository: administered(changed) } };
    },
  });

  const revoke = endpoint({
    method: 'delete',
    path: '/repositories/:repository/grants/:user',
    action: 'repository.revoke',
    input: nothing,
    run: async (call) => {
      const repository = await openRepository(options, call, 'admin');
      const user = call.param('user');
      const changed = await repositories.update(repository, ({ access }) => {
        if (!Object.hasOwn(access.grants, user)) {
          throw new QuorateError('not-found', `${user} has no grant on ${repository.name}`);
        }
        const kept = Object.entries(access.grants).filter(([name]) => name !== user);
        return { access: { ...access, grants: Object.fromEntries(kept) } };
      });
      return { status: 200, body: { repository: administered(changed) } };
    },
  });

  return [change, setHead, grant, revoke];
}

function withGrant(
  grants: Readonly<Record<string, AccessLevel>>,
  user: string,
  level: AccessLevel,
): Record<string, AccessLevel> {
  const next = { ...grants, [user]: level };
  if (Object.keys(next).length > maxGrants) {
    throw new QuorateError('resource-exhausted', `a repository takes at most ${maxGrants} grants`);
  }
  return next;
}

function administered(repository: Repository): object {
  return {
    ...shownRepository(repository),
    settings: repository.settings,
    grants: repository.access.grants,
  };
}
