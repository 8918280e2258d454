import { z } from 'zod';
import type { CertificateAuthority, Revocation } from '../../auth/certificate-authorities.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing } from './fields.js';

const what = 'certificate authorities';
const fingerprint = z
  .string()
  .regex(/^SHA256:[A-Za-z0-9+/]{43}$/, { error: 'has to be a fingerprint: SHA256:...' });

/** Who certifies the SSH keys of users, and which certificates are revoked: for server administrators. */
export function certificateEndpoints({
  authorities,
}: Pick<AdminApiOptions, 'authorities'>): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/certificate-authorities',
    action: 'authority.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, what);
      const found = await authorities.list();
      return { status: 200, body: { authorities: found.map(shownAuthority) } };
    },
  });

  const add = endpoint({
    method: 'post',
    path: '/certificate-authorities',
    action: 'authority.add',
    input: z.strictObject({
      key: z
        .string()
        .min(1)
        .max(16 * 1024),
    }),
    shown: () => ({}),
    run: async (call, { key }) => {
      requireServerAdmin(call.principal, what);
      const authority = await authorities.add(key.trim());
      call.note({ fingerprint: authority.fingerprint });
      return { status: 201, body: { authority: shownAuthority(authority) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/certificate-authorities/:fingerprint',
    action: 'authority.remove',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, what);
      await authorities.remove(call.param('fingerprint'));
      return { status: 200, body: { removed: call.param('fingerprint') } };
    },
  });

  return [list, add, remove, ...revocationEndpoints(authorities)];
}

function revocationEndpoints(authorities: AdminApiOptions['authorities']): Endpoint[] {
  const list = endpoint({
    method: 'get',
    path: '/revocations',
    action: 'revocation.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, what);
      const found = await authorities.listRevocations();
      return { status: 200, body: { revocations: found.map(shownRevocation) } };
    },
  });

  const add = endpoint({
    method: 'post',
    path: '/revocations',
    action: 'revocation.add',
    input: z.discriminatedUnion('kind', [
      z.strictObject({ kind: z.literal('serial'), value: z.string(), authority: fingerprint }),
      z.strictObject({ kind: z.literal('key-id'), value: z.string().min(1).max(1024) }),
      z.strictObject({ kind: z.literal('key'), value: fingerprint }),
    ]),
    run: async (call, revoked) => {
      requireServerAdmin(call.principal, what);
      const revocation = await authorities.revoke(revoked);
      return { status: 201, body: { revocation: shownRevocation(revocation) } };
    },
  });

  const remove = endpoint({
    method: 'delete',
    path: '/revocations/:revocation',
    action: 'revocation.remove',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, what);
      await authorities.removeRevocation(call.param('revocation'));
      return { status: 200, body: { removed: call.param('revocation') } };
    },
  });

  return [list, add, remove];
}

function shownAuthority(authority: CertificateAuthority): object {
  return {
    fingerprint: authority.fingerprint,
    type: authority.type,
    comment: authority.comment,
    createdAt: new Date(authority.createdAtMs).toISOString(),
  };
}

function shownRevocation({ createdAtMs, ...revocation }: Revocation): object {
  return { ...revocation, createdAt: new Date(createdAtMs).toISOString() };
}
