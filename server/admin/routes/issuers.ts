import { z } from 'zod';
import { tokenAlgorithms } from '../../auth/openid-issuers.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { eitherOf, nothing, scope } from './fields.js';

/** Issuers of OpenID Connect tokens that are believed: for server administrators. */
export function issuerEndpoints({ issuers }: Pick<AdminApiOptions, 'issuers'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/openid-issuers',
    action: 'issuer.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'seeing issuers');
      return { status: 200, body: { issuers: await issuers.list() } };
    },
  });

  const set = endpoint({
    method: 'put',
    path: '/openid-issuers/:name',
    action: 'issuer.set',
    input: z.strictObject({
      issuer: z.string().max(1024),
      audience: z.string().max(1024),
      jwksUrl: z.string().max(1024).nullable().default(null),
      algorithms: z
        .array(z.enum(tokenAlgorithms, { error: `has to be ${eitherOf(tokenAlgorithms)}` }))
        .default(['RS256', 'ES256', 'EdDSA']),
      claims: z.record(z.string().min(1).max(128), z.string().max(256)),
      repositories: z.string().max(256),
      level: scope,
    }),
    run: async (call, trust) => {
      requireServerAdmin(call.principal, 'trusting issuers');
      const stored = await issuers.set({ ...trust, name: call.param('name') });
      return { status: 200, body: { issuer: stored } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/openid-issuers/:name',
    action: 'issuer.remove',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'removing issuers');
      await issuers.remove(call.param('name'));
      return { status: 200, body: { removed: call.param('name') } };
    },
  });

  return [list, set, remove];
}
