import { createHash } from 'node:crypto';
import type { Coordinator } from '../../backends/contract/coordinator.js';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { keys } from '../../backends/contract/keys.js';
import { decodeRecord, encodeRecord, readAll } from './account-records.js';
import type { Accounts } from './accounts.js';
import {
  authorityRecord,
  revocationRecord,
  type AuthorityRecord,
  type RevocationRecord,
} from './certificate-records.js';
import { optionProblem, validityProblem } from './certificate-rules.js';
import type { Principal } from './principal.js';
import type { SshCertificate } from './ssh-certificate.js';
import { parseSshPublicKeyLine } from './ssh-public-key.js';

/** Somebody whose signature on a user's key makes it the user's. */
export interface CertificateAuthority {
  readonly fingerprint: string;
  readonly type: string;
  readonly comment: string;
  readonly createdAtMs: number;
}

/** What is no longer to be believed, although an authority signed it. */
export type Revoked =
  /** Decimal, greater than 0; of one authority, since each counts for itself. */
  | { readonly kind: 'serial'; readonly value: string; readonly authority: string }
  | { readonly kind: 'key-id'; readonly value: string }
  /** `SHA256:...` of the certified key. */
  | { readonly kind: 'key'; readonly value: string };

export type Revocation = Revoked & { readonly id: string; readonly createdAtMs: number };

export type CertificateVerdict =
  | { readonly principal: Principal }
  /** For logs and the audit trail; the client is told only that it is not let in. */
  | { readonly problem: string };

/**
 * Certificate authorities for SSH users and the list of what they regret, kept in the coordinator and read linearizably
 * with each sign-in. Errors: `invalid-argument`, `already-exists`, `not-found`, `unavailable`.
 */
export interface CertificateAuthorities {
  /** `line` is one line of the authority's public key file. */
  add(line: string): Promise<CertificateAuthority>;
  list(): Promise<readonly CertificateAuthority[]>;
  /** Its certificates are refused from the next request on. */
  remove(fingerprint: string): Promise<void>;
  /** Idempotent. */
  revoke(revoked: Revoked): Promise<Revocation>;
  listRevocations(): Promise<readonly Revocation[]>;
  removeRevocation(id: string): Promise<void>;
  /**
   * Whom a certificate lets in. The caller has verified that the client holds the certified key. With the SSH user name
   * `git` it is the one user among the certificate's principals; with another name that one, which has to be among them.
   */
  judge(
    certificate: SshCertificate,
    client: { readonly userName: string; readonly remoteAddress: string },
  ): Promise<CertificateVerdict>;
}

export function createCertificateAuthorities(parts: {
  readonly coordinator: Coordinator;
  readonly accounts: Pick<Accounts, 'certifiedUser'>;
  readonly clock: Clock;
}): CertificateAuthorities {
  return new CoordinatedAuthorities(parts);
}

/** The user part of `git@host`, which says nothing. */
const anyUserName = 'git';

class CoordinatedAuthorities implements CertificateAuthorities {
  readonly #coordinator: Coordinator;
  readonly #accounts: Pick<Accounts, 'certifiedUser'>;
  readonly #clock: Clock;

  constructor(parts: {
    readonly coordinator: Coordinator;
    readonly accounts: Pick<Accounts, 'certifiedUser'>;
    readonly clock: Clock;
  }) {
    this.#coordinator = parts.coordinator;
    this.#accounts = parts.accounts;
    this.#clock = parts.clock;
  }

  async add(line: string): Promise<CertificateAuthority> {
    const { key, comment } = parseSshPublicKeyLine(line);
    const record: AuthorityRecord = {
      fingerprint: key.fingerprint,
      type: key.type,
      comment,
      blob: Buffer.from(key.blob).toString('base64'),
      createdAtMs: this.#clock.nowMs(),
    };
    const storeKey = keys.authority(key.fingerprint);
    const result = await this.#coordinator.transaction({
      binding: true,
      compares: [{ key: storeKey, target: 'createRevision', op: '=', operand: 0 }],
      success: [{ type: 'put', key: storeKey, value: encodeRecord(record) }],
      failure: [],
    });
    if (result.succeeded) return shown(record);
    throw new QuorateError('already-exists', 'this certificate authority is known already');
  }

  async list(): Promise<readonly CertificateAuthority[]> {
    const entries = await readAll(this.#coordinator, keys.authorities);
    return entries.map((entry) => shown(decodeRecord(authorityRecord, entry)));
  }

  async remove(fingerprint: string): Promise<void> {
    const found = isFingerprint(fingerprint) && (await this.#delete(keys.authority(fingerprint)));
    if (!found) {
      throw new QuorateError('not-found', 'there is no certificate authority of this fingerprint');
    }
  }

  async revoke(revoked: Revoked): Promise<Revocation> {
    const problem = revokedProblem(revoked);
    if (problem !== undefined) throw new QuorateError('invalid-argument', problem);
    const id = revocationId(revoked);
    const record: RevocationRecord = {
      id,
      kind: revoked.kind,
      value: revoked.value,
      authority: revoked.kind === 'serial' ? revoked.authority : null,
      createdAtMs: this.#clock.nowMs(),
    };
    const key = keys.revocation(id);
    await this.#coordinator.transaction({
      binding: true,
      compares: [{ key, target: 'createRevision', op: '=', operand: 0 }],
      success: [{ type: 'put', key, value: encodeRecord(record) }],
      failure: [],
    });
    return revocation(record);
  }

  async listRevocations(): Promise<readonly Revocation[]> {
    const entries = await readAll(this.#coordinator, keys.revocations);
    return entries.map((entry) => revocation(decodeRecord(revocationRecord, entry)));
  }

  async removeRevocation(id: string): Promise<void> {
    if (!/^[0-9a-f]{32}$/.test(id) || !(await this.#delete(keys.revocation(id)))) {
      throw new QuorateError('not-found', `there is no revocation ${id}`);
    }
  }

  async judge(
    certificate: SshCertificate,
    client: { readonly userName: string; readonly remoteAddress: string },
  ): Promise<CertificateVerdict> {
    if (certificate.kind !== 'user') return { problem: 'it is a host certificate' };
    if (!(await this.#trusts(certificate))) return { problem: 'unknown authority' };
    const problem =
      validityProblem(certificate, this.#clock.nowMs()) ??
      optionProblem(certificate, client.remoteAddress);
    if (problem !== undefined) return { problem };
    if (await this.#isRevoked(certificate)) return { problem: 'revoked' };
    return await this.#principalOf(certificate, client.userName);
  }

  async #trusts({ authority }: SshCertificate): Promise<boolean> {
    const entry = await this.#coordinator.get(keys.authority(authority.fingerprint));
    if (entry === undefined) return false;
    const { blob } = decodeRecord(authorityRecord, entry);
    return Buffer.from(blob, 'base64').equals(authority.blob);
  }

  async #isRevoked({ serial, keyId, key, authority }: SshCertificate): Promise<boolean> {
    const entries: readonly Revoked[] = [
      { kind: 'serial', value: String(serial), authority: authority.fingerprint },
      { kind: 'key-id', value: keyId },
      { kind: 'key', value: key.fingerprint },
    ];
    const found = await Promise.all(
      entries.map((entry) => this.#coordinator.get(keys.revocation(revocationId(entry)))),
    );
    return found.some((entry) => entry !== undefined);
  }

  async #principalOf(certificate: SshCertificate, userName: string): Promise<CertificateVerdict> {
    const { principals, key } = certificate;
    if (userName !== anyUserName && !principals.includes(userName)) {
      return { problem: 'it is not for the principal that was asked for' };
    }
    const wanted = userName === anyUserName ? [...new Set(principals)] : [userName];
    if (wanted.length > maxLookups) return { problem: 'too many principals: name one of them' };
    const found: Principal[] = [];
    for (const name of wanted) {
      const principal = await this.#accounts.certifiedUser(name, key.fingerprint);
      if (principal !== undefined) found.push(principal);
    }
    const [principal] = found;
    if (principal === undefined) return { problem: 'no principal of it is an enabled user' };
    return found.length === 1
      ? { principal }
      : { problem: 'several of its principals are users: name one as the SSH user' };
  }

  async #delete(key: string): Promise<boolean> {
    const result = await this.#coordinator.transaction({
      binding: true,
      compares: [{ key, target: 'createRevision', op: '>', operand: 0 }],
      success: [{ type: 'delete', key }],
      failure: [],
    });
    return result.succeeded;
  }
}

/** Principals of one certificate that are looked up as users. */
const maxLookups = 16;

function isFingerprint(text: string): boolean {
  return /^SHA256:[A-Za-z0-9+/]{43}$/.test(text);
}

function revokedProblem(revoked: Revoked): string | undefined {
  switch (revoked.kind) {
    case 'serial':
      if (!isFingerprint(revoked.authority)) {
        return "a serial number needs its authority's fingerprint (SHA256:...)";
      }
      // 0 is what every certificate has that was not numbered.
      return /^[1-9]\d{0,19}$/.test(revoked.value) && BigInt(revoked.value) < 2n ** 64n
        ? undefined
        : 'a serial number is a whole number from 1 to 2^64 - 1';
    case 'key':
      return isFingerprint(revoked.value)
        ? undefined
        : 'a key is given by its fingerprint (SHA256:...)';
    case 'key-id':
      return revoked.value.length >= 1 && revoked.value.length <= 1024
        ? undefined
        : 'a key id is 1 to 1,024 characters long';
  }
}

/** Found by what a certificate says, of whatever length that is. */
function revocationId(revoked: Revoked): string {
  const authority = revoked.kind === 'serial' ? revoked.authority : '';
  return createHash('sha256')
    .update(JSON.stringify([revoked.kind, revoked.value, authority]))
    .digest('hex')
    .slice(0, 32);
}

function revocation({ id, kind, value, authority, createdAtMs }: RevocationRecord): Revocation {
  return kind === 'serial'
    ? { id, kind, value, authority: authority ?? '', createdAtMs }
    : { id, kind, value, createdAtMs };
}

function shown({ fingerprint, type, comment, createdAtMs }: AuthorityRecord): CertificateAuthority {
  return { fingerprint, type, comment, createdAtMs };
}
