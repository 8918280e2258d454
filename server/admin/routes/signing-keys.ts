import { z } from 'zod';
import { QuorateError } from '../../../backends/contract/errors.js';
import { mayAdministerServer } from '../../auth/access-rules.js';
import type { OpenpgpKey } from '../../auth/openpgp-keys.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireAccountReader, requireKeyWriter, requireAccount } from '../permissions.js';
import { nothing, userName } from './fields.js';

/** A key of 64 KiB in base64, with its armor. */
const maxArmoredLength = 96 * 1024;

/** OpenPGP keys that commits may be signed with; SSH keys sign without being registered twice. */
export function signingKeyEndpoints({
  openpgpKeys,
}: Pick<AdminApiOptions, 'openpgpKeys'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/signing-keys',
    action: 'signing-key.list',
    input: z.strictObject({ user: userName.optional() }),
    run: async (call, { user }) => {
      requireAccount(call.principal);
      const own = call.principal.kind === 'user' ? call.principal.name : undefined;
      const wanted = user ?? (mayAdministerServer(call.principal) ? undefined : own);
      if (wanted !== undefined) requireAccountReader(call.principal, wanted);
      const found = (await openpgpKeys.list()).filter(
        (key) => wanted === undefined || key.user === wanted,
      );
      return { status: 200, body: { signingKeys: found.map(shownKey) } };
    },
  });

  const add = endpoint({
    method: 'post',
    path: '/signing-keys',
    action: 'signing-key.add',
    input: z.strictObject({ user: userName, key: z.string().min(1).max(maxArmoredLength) }),
    shown: ({ user }) => ({ user }),
    run: async (call, { user, key }) => {
      requireKeyWriter(call.principal, user);
      const added = await openpgpKeys.add(user, key);
      call.note({ fingerprint: added.fingerprint });
      return { status: 201, body: { signingKey: shownKey(added) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/signing-keys/:fingerprint',
    action: 'signing-key.remove',
    input: nothing,
    run: async (call) => {
      requireAccount(call.principal);
      const fingerprint = call.param('fingerprint');
      if (!mayAdministerServer(call.principal) && call.principal.kind === 'user') {
        const { name } = call.principal;
        const own = (await openpgpKeys.list()).filter(({ user }) => user === name);
        if (!own.some((key) => key.fingerprint === fingerprint)) {
          throw new QuorateError('not-found', 'there is no signing key of this id');
        }
        requireKeyWriter(call.principal, name);
      }
      await openpgpKeys.remove(fingerprint);
      return { status: 200, body: { removed: fingerprint } };
    },
  });

  return [list, add, remove];
}

function shownKey(key: OpenpgpKey): object {
  return {
    fingerprint: key.fingerprint,
    user: key.user,
    createdAt: new Date(key.createdAtMs).toISOString(),
  };
}
