import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { User } from '../../auth/accounts.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing, userName } from './fields.js';

/** Users: for server administrators only. */
export function userEndpoints({ accounts }: Pick<AdminApiOptions, 'accounts'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/users',
    action: 'user.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'listing users');
      const users = await accounts.listUsers();
      return { status: 200, body: { users: users.map(shownUser) } };
    },
  });

  const create = endpoint({
    method: 'post',
    path: '/users',
    action: 'user.create',
    input: z.strictObject({
      name: userName,
      admin: z.boolean().default(false),
      canCreate: z.boolean().default(true),
    }),
    run: async (call, input) => {
      requireServerAdmin(call.principal, 'creating users');
      return { status: 201, body: { user: shownUser(await accounts.createUser(input)) } };
    },
  });

  const change = endpoint({
    method: 'patch',
    path: '/users/:user',
    action: 'user.change',
    input: z.strictObject({ disabled: z.boolean() }),
    run: async (call, { disabled }) => {
      requireServerAdmin(call.principal, 'changing users');
      const name = call.param('user');
      // The way back would be closed: a disabled administrator can enable nobody.
      if (disabled && call.principal.kind === 'user' && call.principal.name === name) {
        throw new QuorateError('failed-precondition', 'you cannot disable yourself');
      }
      return {
        status: 200,
        body: { user: shownUser(await accounts.setUserDisabled(name, disabled)) },
      };
    },
  });

  return [list, create, change];
}

function shownUser(user: User): object {
  return {
    name: user.name,
    admin: user.admin,
    disabled: user.disabled,
    canCreate: user.canCreate,
    createdAt: new Date(user.createdAtMs).toISOString(),
  };
}
