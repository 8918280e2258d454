import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { TrustedSigners } from '../../backends/contract/inspection.js';
import { keys } from '../../backends/contract/keys.js';
import { anyKeyRecord, decodeRecord, readAll, userRecord } from './account-records.js';
import { openpgpKeyRecord } from './openpgp-keys.js';

/** The registered keys of all users who are not disabled: those whose signatures on commits count. */
export async function trustedSigners(coordinator: Coordinator): Promise<TrustedSigners> {
  const [users, sshKeys, openpgpKeys] = await Promise.all([
    readAll(coordinator, keys.users),
    readAll(coordinator, keys.sshKeys),
    readAll(coordinator, keys.openpgpKeys),
  ]);
  const enabled = new Set(
    users
      .map((entry) => decodeRecord(userRecord, entry))
      .filter(({ disabled }) => !disabled)
      .map(({ name }) => name),
  );
  const ssh = sshKeys
    .map((entry) => decodeRecord(anyKeyRecord, entry))
    // A deploy key is of a program, and signs nobody's work.
    .flatMap((key) => ('user' in key && enabled.has(key.user) ? [key] : []))
    // A user name holds nothing that this format would take for more than a name.
    .map(({ user, type, blob }) => `${user} namespaces="git" ${type} ${blob}\n`);
  const openpgp = openpgpKeys
    .map((entry) => decodeRecord(openpgpKeyRecord, entry))
    .filter(({ user }) => enabled.has(user))
    .map(({ key }) => Buffer.from(key, 'base64'));
  return { ssh: ssh.join(''), openpgp: Buffer.concat(openpgp) };
}
