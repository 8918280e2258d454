import { createRequire } from 'node:module';
import type { Algorithms } from 'ssh2';

/**
 * What is offered, best first: nothing with SHA-1 or CBC. ssh2 adds strict key exchange
 * (the answer to Terrapin, CVE-2023-48795) by itself.
 *
 * Left out although ssh2 has them: ChaCha20-Poly1305, whose native version fails on OpenSSL 3.5 (Node 22 and 24);
 * Diffie-Hellman groups 17 and 18 and group exchange, which cost a stranger little and this server much.
 */
export const sshAlgorithms = {
  kex: [
    'curve25519-sha256',
    'curve25519-sha256@libssh.org',
    'ecdh-sha2-nistp256',
    'ecdh-sha2-nistp384',
    'ecdh-sha2-nistp521',
    'diffie-hellman-group14-sha256',
    'diffie-hellman-group16-sha512',
  ],
  // AES-GCM first: hardware does it, and ssh2's native version is faster than sshd.
  cipher: [
    'aes128-gcm@openssh.com',
    'aes256-gcm@openssh.com',
    'aes128-ctr',
    'aes192-ctr',
    'aes256-ctr',
  ],
  // Encrypt-then-MAC first. The other two are for libssh2 before 1.11 (libgit2 on Debian 12), which has nothing better.
  hmac: [
    'hmac-sha2-256-etm@openssh.com',
    'hmac-sha2-512-etm@openssh.com',
    'hmac-sha2-256',
    'hmac-sha2-512',
  ],
  compress: ['none'],
} as const satisfies Algorithms;

/** What the start-up log says about the cryptography of SSH. */
export interface CryptoDescription {
  /** ssh2's native addon encrypts; without it Node's `crypto` does, at half the speed or less. */
  readonly native: boolean;
  readonly kex: readonly string[];
  readonly ciphers: readonly string[];
  readonly macs: readonly string[];
  readonly hostKeys: readonly string[];
  readonly userKeys: readonly string[];
}

/** Signature algorithms that user keys may use (RFC 8332 for RSA: never SHA-1). */
const userKeyAlgorithms = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
  'rsa-sha2-256',
];

export function describeCrypto(hostKeys: readonly string[]): CryptoDescription {
  return {
    native: hasNativeCrypto(),
    kex: sshAlgorithms.kex,
    ciphers: sshAlgorithms.cipher,
    macs: sshAlgorithms.hmac,
    hostKeys,
    userKeys: userKeyAlgorithms,
  };
}

/** ssh2 falls back to `node:crypto` silently when its addon does not load. This loads the same file as ssh2 does. */
function hasNativeCrypto(): boolean {
  try {
    createRequire(import.meta.url)('ssh2/lib/protocol/crypto/build/Release/sshcrypto.node');
    return true;
  } catch {
    return false;
  }
}
