import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { Group } from '../../auth/access-directory.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing, userName } from './fields.js';

/** Groups of users, to whom repositories are granted as `@name`: for server administrators. */
export function groupEndpoints({ directory }: Pick<AdminApiOptions, 'directory'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/groups',
    action: 'group.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'seeing groups');
      return { status: 200, body: { groups: (await directory.listGroups()).map(shownGroup) } };
    },
  });

  const create = endpoint({
    method: 'post',
    path: '/groups',
    action: 'group.create',
    input: z.strictObject({ name: userName }),
    run: async (call, { name }) => {
      requireServerAdmin(call.principal, 'creating groups');
      return { status: 201, body: { group: shownGroup(await directory.createGroup(name)) } };
    },
  });

  const show = endpoint({
    method: 'get',
    path: '/groups/:group',
    action: 'group.show',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'seeing groups');
      const name = call.param('group');
      const group = await directory.getGroup(name);
      if (group === undefined) throw new QuorateError('not-found', `there is no group ${name}`);
      return { status: 200, body: { group: shownGroup(group) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/groups/:group',
    action: 'group.remove',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'removing groups');
      const name = call.param('group');
      await directory.removeGroup(name);
      return { status: 200, body: { removed: name } };
    },
  });

  const join = endpoint({
    method: 'put',
    path: '/groups/:group/members/:user',
    action: 'group.add-member',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'changing groups');
      const group = await directory.addMember(call.param('group'), call.param('user'));
      return { status: 200, body: { group: shownGroup(group) } };
    },
  });

  const leave = endpoint({
    method: 'delete',
    path: '/groups/:group/members/:user',
    action: 'group.remove-member',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'changing groups');
      const group = await directory.removeMember(call.param('group'), call.param('user'));
      return { status: 200, body: { group: shownGroup(group) } };
    },
  });

  return [list, create, show, remove, join, leave];
}

function shownGroup(group: Group): object {
  return {
    name: group.name,
    members: group.members,
    createdAt: new Date(group.createdAtMs).toISOString(),
  };
}
