import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { AccessToken, NewToken } from '../../auth/accounts.js';
import type { Principal } from '../../auth/principal.js';
import { mayAdministerServer } from '../../auth/access-rules.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import {
  listedOwner,
  requireAccount,
  requireTokenCreator,
  requireTokenRevoker,
  requireUser,
} from '../permissions.js';
import { nothing, scope, userName } from './fields.js';

/** Ten years: whoever wants longer wants a token that does not expire. */
const maxLifeSeconds = 10 * 365 * 86_400;

/** Access tokens: people create and revoke their own, server administrators everybody's. */
export function tokenEndpoints({
  accounts,
  clock,
}: Pick<AdminApiOptions, 'accounts' | 'clock'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/tokens',
    action: 'token.list',
    input: z.strictObject({ user: userName.optional() }),
    run: async (call, { user }) => {
      const owner = listedOwner(call.principal, user);
      if (owner !== undefined) await requireUser(accounts, owner);
      const found = await accounts.listTokens(owner);
      return { status: 200, body: { tokens: found.map(shownToken) } };
    },
  });

  const inUse = async (principal: Principal): Promise<AccessToken | undefined> => {
    if (principal.kind !== 'user' || principal.via.type !== 'token') return undefined;
    const { tokenId } = principal.via;
    return (await accounts.listTokens(principal.name)).find(({ id }) => id === tokenId);
  };

  const create = endpoint({
    method: 'post',
    path: '/tokens',
    action: 'token.create',
    secrets: ['secret'],
    input: z.strictObject({
      user: userName,
      name: z.string().min(1).max(128).default('token'),
      scope: scope.default('write'),
      repositoryPattern: z.string().min(1).max(1024).optional(),
      expiresInSeconds: z.int().min(1).max(maxLifeSeconds).optional(),
    }),
    run: async (call, { expiresInSeconds, repositoryPattern, ...rest }) => {
      const wanted: NewToken = {
        ...rest,
        ...(repositoryPattern === undefined ? {} : { repositoryPattern }),
        ...(expiresInSeconds === undefined
          ? {}
          : { expiresAtMs: clock.nowMs() + expiresInSeconds * 1000 }),
      };
      requireTokenCreator(call.principal, wanted, await inUse(call.principal));
      const { token, secret } = await accounts.createToken(wanted);
      call.note({ tokenId: token.id });
      return { status: 201, body: { token: shownToken(token), secret } };
    },
  });

  const revoke = endpoint({
    method: 'delete',
    path: '/tokens/:token',
    action: 'token.revoke',
    input: nothing,
    run: async (call) => {
      requireAccount(call.principal);
      const id = call.param('token');
      const { principal } = call;
      const own =
        !mayAdministerServer(principal) && principal.kind === 'user' ? principal.name : undefined;
      const token = (await accounts.listTokens(own)).find((known) => known.id === id);
      if (token === undefined) {
        throw new QuorateError('not-found', `there is no token ${id}`);
      }
      requireTokenRevoker(principal, token);
      await accounts.revokeToken(id);
      return { status: 200, body: { revoked: id } };
    },
  });

  return [list, create, revoke];
}

function shownToken(token: AccessToken): object {
  return {
    id: token.id,
    user: token.user,
    name: token.name,
    scope: token.scope,
    repositoryPattern: token.repositoryPattern ?? null,
    createdAt: new Date(token.createdAtMs).toISOString(),
    expiresAt: isoTime(token.expiresAtMs),
    lastUsedAt: isoTime(token.lastUsedAtMs),
  };
}

function isoTime(atMs: number | undefined): string | null {
  return atMs === undefined ? null : new Date(atMs).toISOString();
}
