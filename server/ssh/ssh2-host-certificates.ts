import assert from 'node:assert/strict';
import type ssh2 from 'ssh2';
import type { SshKeyType } from '../auth/ssh-public-key.js';
import type { HostCertificate } from './host-certificate.js';

/*
 * The one place that touches ssh2's insides, so that SSH host certificates (PROTOCOL.certkeys of OpenSSH) can be
 * offered. ssh2 1.17.0 knows no certificates, but comes close:
 *
 * - What a host key calls its type is what is offered for it. A key object whose type is the certificate's algorithm is
 *   offered under that name.
 * - When the client has chosen, the key is looked up by that name in `_hostKeys` of the connection's `_protocol`.
 *   `getPublicSSH()` of what is found is sent: here, the certificate.
 * - `sign()` is called with the exchange hash, and answered at once. Only *then* the name in front of the signature is
 *   read, from `negotiated.serverHostKey` of the exchange (`_kex`). It would be the certificate's algorithm, where
 *   OpenSSH wants the plain one. So `sign()` puts the plain one there. Each exchange of a connection (rekeying) has a
 *   `negotiated` of its own.
 *
 * Whether the ssh2 that is installed still works so is tried out before a certificate is offered to anybody: see
 * `host-certificate-check.ts`.
 */

interface Signing {
  /** As in the lists of a key exchange. */
  readonly algorithm: string;
  /** In front of the signature. */
  readonly signature: string;
  /** For ssh2's `sign`; without it the one that goes with the key. */
  readonly hash?: string;
}

/** By type of the certified key, preferred first. RSA with SHA-2 only (RFC 8332). */
const signings: Readonly<Record<SshKeyType, readonly Signing[]>> = {
  'ssh-ed25519': [same('ssh-ed25519')],
  'ecdsa-sha2-nistp256': [same('ecdsa-sha2-nistp256')],
  'ecdsa-sha2-nistp384': [same('ecdsa-sha2-nistp384')],
  'ecdsa-sha2-nistp521': [same('ecdsa-sha2-nistp521')],
  'ssh-rsa': [
    { ...same('rsa-sha2-512'), hash: 'sha512' },
    { ...same('rsa-sha2-256'), hash: 'sha256' },
  ],
};

function same(signature: string): Signing {
  return { algorithm: `${signature}-cert-v01@openssh.com`, signature };
}

/** The algorithms under which a certificate is offered, each with the name that its signatures carry. */
export function certificateAlgorithms(certificate: HostCertificate): readonly Signing[] {
  return signings[certificate.content.key.type];
}

/** What to give to an `ssh2.Server` beside the plain keys, so that it offers these certificates. */
export function certifiedHostKeys(
  certificates: readonly HostCertificate[],
): readonly ssh2.ParsedKey[] {
  return certificates.flatMap((certificate) =>
    certificateAlgorithms(certificate).map(({ algorithm }): ssh2.ParsedKey => {
      return Object.create(certificate.hostKey.privateKey, { type: { value: algorithm } });
    }),
  );
}

/**
 * Lets one connection show the certificates that its server offers. To be called when ssh2 emits `connection`, which is
 * before the first key exchange.
 */
export function presentHostCertificates(
  connection: ssh2.Connection,
  certificates: readonly HostCertificate[],
): void {
  if (certificates.length === 0) return;
  const protocol = inside(connection, '_protocol');
  const own: Record<string, unknown> = Object.assign(
    Object.create(null),
    inside(protocol, '_hostKeys'),
  );
  for (const certificate of certificates) {
    for (const signing of certificateAlgorithms(certificate)) {
      assert(signing.algorithm in own, 'the server offers the certificate');
      own[signing.algorithm] = presentedKey(protocol, certificate, signing);
    }
  }
  Reflect.set(protocol, '_hostKeys', own);
}

/** The host key with its certificate as its public half. Its type is the plain one, by which ssh2 encodes signatures. */
function presentedKey(
  protocol: object,
  { hostKey: { privateKey }, blob }: HostCertificate,
  { algorithm, signature, hash }: Signing,
): ssh2.ParsedKey {
  const sign = (data: Buffer | string): Buffer => {
    const negotiated = inside(inside(protocol, '_kex'), 'negotiated');
    assert.equal(Reflect.get(negotiated, 'serverHostKey'), algorithm);
    Reflect.set(negotiated, 'serverHostKey', signature);
    return privateKey.sign(data, hash);
  };
  return Object.create(privateKey, {
    getPublicSSH: { value: () => blob },
    sign: { value: sign },
  });
}

function inside(holder: object, name: string): object {
  const value: unknown = Reflect.get(holder, name);
  assert(typeof value === 'object' && value !== null, `ssh2 has an object ${name}`);
  return value;
}
