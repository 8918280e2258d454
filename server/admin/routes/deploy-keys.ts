import { z } from 'zod';
import type { DeployKey } from '../../auth/accounts.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { nothing } from './fields.js';
import { openRepository } from './repositories.js';

/** Longer than any public key line that ssh-keygen writes, with its comment. */
const maxKeyLineLength = 16 * 1024;

/** SSH keys that are bound to one repository: for those who administer it. */
export function deployKeyEndpoints(
  options: Pick<AdminApiOptions, 'backend' | 'authorizer' | 'accounts'>,
): Endpoint[] {
  const { accounts } = options;
  const { repositories } = options.backend;

  const list = endpoint({
    method: 'get',
    path: '/repositories/:repository/deploy-keys',
    action: 'deploy-key.list',
    input: nothing,
    run: async (call) => {
      const repository = await openRepository(options, call, 'admin');
      const found = await accounts.listDeployKeys(repository.id);
      return { status: 200, body: { deployKeys: found.map(shownDeployKey) } };
    },
  });

  const add = endpoint({
    method: 'post',
    path: '/repositories/:repository/deploy-keys',
    action: 'deploy-key.add',
    input: z.strictObject({
      key: z.string().min(1).max(maxKeyLineLength),
      write: z.boolean().default(false),
    }),
    // Key material stays out of the trail; the fingerprint says which key it was.
    shown: ({ write }) => ({ write }),
    run: async (call, { key, write }) => {
      const repository = await openRepository(options, call, 'admin');
      const wanted = { repositoryId: repository.id, line: key.trim(), write };
      const added = await repositories.whileNamed(repository, () => accounts.addDeployKey(wanted));
      call.note({ fingerprint: added.fingerprint });
      return { status: 201, body: { deployKey: shownDeployKey(added) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/repositories/:repository/deploy-keys/:fingerprint',
    action: 'deploy-key.remove',
    input: nothing,
    run: async (call) => {
      const repository = await openRepository(options, call, 'admin');
      const fingerprint = call.param('fingerprint');
      await repositories.whileNamed(repository, () =>
        accounts.removeDeployKey(repository.id, fingerprint),
      );
      return { status: 200, body: { removed: fingerprint } };
    },
  });

  return [list, add, remove];
}

function shownDeployKey(key: DeployKey): object {
  return {
    fingerprint: key.fingerprint,
    write: key.write,
    type: key.type,
    comment: key.comment,
    createdAt: new Date(key.createdAtMs).toISOString(),
  };
}
