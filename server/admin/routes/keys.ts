import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import type { SshKey } from '../../auth/accounts.js';
import { mayAdministerServer } from '../../auth/access-rules.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireAccountReader, requireKeyWriter, requireAccount } from '../permissions.js';
import { nothing, userName } from './fields.js';

/** Longer than any public key line that ssh-keygen writes (RSA with 16,384 bits: 2.8 KB) with its comment. */
const maxKeyLineLength = 16 * 1024;

/** SSH keys: people manage their own, server administrators everybody's. */
export function keyEndpoints({ accounts }: Pick<AdminApiOptions, 'accounts'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/keys',
    action: 'key.list',
    input: z.strictObject({ user: userName.optional() }),
    run: async (call, { user }) => {
      requireAccount(call.principal);
      const own = call.principal.kind === 'user' ? call.principal.name : undefined;
      const wanted = user ?? (mayAdministerServer(call.principal) ? undefined : own);
      if (wanted !== undefined) requireAccountReader(call.principal, wanted);
      const found = await accounts.listKeys(wanted);
      return { status: 200, body: { keys: found.map(shownKey) } };
    },
  });

  const add = endpoint({
    method: 'post',
    path: '/keys',
    action: 'key.add',
    input: z.strictObject({ user: userName, key: z.string().min(1).max(maxKeyLineLength) }),
    // Key material stays out of the trail; the fingerprint says which key it was.
    shown: ({ user }) => ({ user }),
    run: async (call, { user, key }) => {
      requireKeyWriter(call.principal, user);
      const added = await accounts.addKey(user, key.trim());
      call.note({ fingerprint: added.fingerprint });
      return { status: 201, body: { key: shownKey(added) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/keys/:fingerprint',
    action: 'key.remove',
    input: nothing,
    run: async (call) => {
      requireAccount(call.principal);
      const fingerprint = call.param('fingerprint');
      if (!mayAdministerServer(call.principal) && call.principal.kind === 'user') {
        const own = await accounts.listKeys(call.principal.name);
        // Another's key is as good as none: who owns which key is nobody else's business.
        if (!own.some((key) => key.fingerprint === fingerprint)) throw noSuchKey();
        requireKeyWriter(call.principal, call.principal.name);
      }
      await accounts.removeKey(fingerprint);
      return { status: 200, body: { removed: fingerprint } };
    },
  });

  return [list, add, remove];
}

function noSuchKey(): QuorateError {
  return new QuorateError('not-found', 'there is no key with that fingerprint');
}

function shownKey(key: SshKey): object {
  return {
    fingerprint: key.fingerprint,
    user: key.user,
    type: key.type,
    comment: key.comment,
    createdAt: new Date(key.createdAtMs).toISOString(),
  };
}
