import type { DeployKeyRecord, SshKeyRecord, TokenRecord } from './account-records.js';
import type { AccessToken, DeployKey, SshKey } from './accounts.js';

/** What is told of stored keys and tokens: not a token's hash, nor a key's bytes. */

export function shownDeployKey(record: DeployKeyRecord): DeployKey {
  const { fingerprint, repositoryId, write, type, comment, createdAtMs } = record;
  return { fingerprint, repositoryId, write, type, comment, createdAtMs };
}

export function shownKey(record: SshKeyRecord): SshKey {
  const { fingerprint, user, type, comment, createdAtMs } = record;
  return { fingerprint, user, type, comment, createdAtMs };
}

export function shownToken(record: TokenRecord, lastUsedAtMs: number | undefined): AccessToken {
  const { id, user, name, scope, createdAtMs } = record;
  return {
    id,
    user,
    name,
    scope,
    repositoryPattern: record.repositoryPattern ?? undefined,
    createdAtMs,
    expiresAtMs: record.expiresAtMs ?? undefined,
    lastUsedAtMs,
  };
}
