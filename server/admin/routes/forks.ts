import { z } from 'zod';
import { parseRepositoryName } from '../../core/repository-name.js';
import { visibleRefs } from '../../core/hidden-refs.js';
import { principalName } from '../../auth/principal.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireRepositoryCreator } from '../permissions.js';
import { repositoryName } from './fields.js';
import { newRepository, openRepository, shownRepository } from './repositories.js';

/** Forking takes what a clone and a push of everything would: the right to read the one and to create the other. */
export function forkEndpoints(
  options: Pick<AdminApiOptions, 'backend' | 'authorizer'>,
): Endpoint[] {
  return [
    endpoint({
      method: 'post',
      path: '/repositories/:repository/fork',
      action: 'repository.fork',
      input: z.strictObject({ name: repositoryName, public: z.boolean().default(false) }),
      run: async (call, input) => {
        const source = await openRepository(options, call, 'read');
        const name = parseRepositoryName(input.name);
        requireRepositoryCreator(call.principal, name);
        const { access } = newRepository(call.principal, { name, public: input.public });
        // What is hidden from a fetch is hidden from whoever forks.
        const visible = visibleRefs(source.settings, 'uploadpack');
        const forked = await options.backend.repositories.fork(
          source,
          { name, access, visible },
          principalName(call.principal),
        );
        return { status: 201, body: { repository: shownRepository(forked) } };
      },
    }),
  ];
}
