import { z } from 'zod';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing, scope } from './fields.js';

/**
 * Grants on patterns of repository names (`team/*`, one percent-encoded segment), for those that exist and those to
 * come: for server administrators. Grants on one repository are in `repository-access.ts`.
 */
export function patternGrantEndpoints({
  directory,
}: Pick<AdminApiOptions, 'directory'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/grants',
    action: 'grant.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'seeing grants on patterns');
      return { status: 200, body: { grants: await directory.listGrants() } };
    },
  });

  const set = endpoint({
    method: 'put',
    path: '/grants/:pattern/:subject',
    action: 'grant.set',
    input: z.strictObject({ level: scope }),
    run: async (call, { level }) => {
      requireServerAdmin(call.principal, 'granting on patterns');
      const [pattern, subject] = [call.param('pattern'), call.param('subject')];
      return {
        status: 200,
        body: { grant: await directory.setGrant({ pattern, subject, level }) },
      };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/grants/:pattern/:subject',
    action: 'grant.remove',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'taking back grants on patterns');
      const [pattern, subject] = [call.param('pattern'), call.param('subject')];
      await directory.removeGrant(pattern, subject);
      return { status: 200, body: { removed: { pattern, subject } } };
    },
  });

  return [list, set, remove];
}
