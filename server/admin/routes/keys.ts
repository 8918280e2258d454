import { QuorateError } from '../../../backends/contract/errors.js';
import type { SshKey } from '../../auth/accounts.js';
import type { OpenpgpKey } from '../../auth/openpgp-keys.js';
import type { Endpoint } from '../endpoint.js';
import type { AdminApiOptions } from '../options.js';
import { requireUser } from '../permissions.js';
import { registeredKeyEndpoints } from './registered-keys.js';

/** Longer than any public key line that ssh-keygen writes (RSA with 16,384 bits: 2.8 KB) with its comment. */
const maxKeyLineLength = 16 * 1024;

/** A key of 64 KiB in base64, with its armor. */
const maxArmoredLength = 96 * 1024;

/** SSH keys, which people sign in with. */
export function keyEndpoints({ accounts }: Pick<AdminApiOptions, 'accounts'>): Endpoint[] {
  return registeredKeyEndpoints<SshKey>({
    path: '/keys',
    action: 'key',
    one: 'key',
    all: 'keys',
    maxLength: maxKeyLineLength,
    list: (user) => accounts.listKeys(user),
    add: (user, text) => accounts.addKey(user, text.trim()),
    remove: (fingerprint) => accounts.removeKey(fingerprint),
    shown: ({ fingerprint, user, type, comment, createdAtMs }) => {
      const createdAt = new Date(createdAtMs).toISOString();
      return { fingerprint, user, type, comment, createdAt };
    },
    noSuch: (fingerprint) => new QuorateError('not-found', `there is no key ${fingerprint}`),
    requireUser: (user) => requireUser(accounts, user),
  });
}

/** OpenPGP keys that commits may be signed with; SSH keys sign without being registered twice. */
export function signingKeyEndpoints({
  accounts,
  openpgpKeys,
}: Pick<AdminApiOptions, 'accounts' | 'openpgpKeys'>): Endpoint[] {
  return registeredKeyEndpoints<OpenpgpKey>({
    path: '/signing-keys',
    action: 'signing-key',
    one: 'signingKey',
    all: 'signingKeys',
    maxLength: maxArmoredLength,
    list: async (user) =>
      (await openpgpKeys.list()).filter((key) => user === undefined || key.user === user),
    add: (user, text) => openpgpKeys.add(user, text),
    remove: (fingerprint) => openpgpKeys.remove(fingerprint),
    shown: ({ fingerprint, user, createdAtMs }) => {
      const createdAt = new Date(createdAtMs).toISOString();
      return { fingerprint, user, createdAt };
    },
    noSuch: (id) => new QuorateError('not-found', `there is no signing key ${id}`),
    requireUser: (user) => requireUser(accounts, user),
  });
}
