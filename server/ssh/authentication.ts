import { verify } from 'node:crypto';
import type { AuthContext, PublicKeyAuthContext } from 'ssh2';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Accounts, SignInOptions } from '../auth/accounts.js';
import type { CertificateAuthorities } from '../auth/certificate-authorities.js';
import type { Principal } from '../auth/principal.js';
import {
  isCertificateAlgorithm,
  parseSshCertificate,
  type SshCertificate,
} from '../auth/ssh-certificate.js';
import { isSshSignature } from '../auth/ssh-signature.js';
import { parseSshPublicKey, type SshPublicKey } from '../auth/ssh-public-key.js';

/** Who a client is, and the key that it proved to have; without one where nobody has to (`--no-auth`). */
export interface SignedIn {
  readonly principal: Principal;
  readonly key?: SshPublicKey;
  /** What vouched for the key; without it the key is known by itself. */
  readonly certificate?: SshCertificate;
  /** The principal as it is now; undefined when it would not be let in any more. */
  renew(options: SignInOptions): Promise<Principal | undefined>;
}

export type AuthenticationStep =
  /** The client asked whether this key would do. */
  | {
      readonly type: 'probe';
      readonly known: boolean;
      readonly fingerprint?: string;
      readonly why?: string;
    }
  | { readonly type: 'accepted'; readonly who: SignedIn }
  | { readonly type: 'rejected'; readonly why: string; readonly fingerprint?: string };

/**
 * Judges one authentication request (RFC 4252 section 7). Only public keys; the user name says nothing. The signature
 * is verified before the key is looked up, so that a client without the private key learns nothing from the answer to
 * a signed request; unknown keys, removed keys and those of disabled users are refused alike.
 * Throws what the accounts throw.
 */
export async function judge(
  context: AuthContext,
  client: {
    readonly accounts: Accounts;
    readonly authorities: Pick<CertificateAuthorities, 'judge'>;
    readonly remoteAddress: string;
  },
): Promise<AuthenticationStep> {
  if (context.method !== 'publickey') return { type: 'rejected', why: `method ${context.method}` };
  if (isCertificateAlgorithm(context.key.algo)) return await judgeCertificate(context, client);
  const { accounts } = client;
  const key = readKey(context);
  if (key === undefined) return { type: 'rejected', why: 'algorithm or key not accepted' };
  const { fingerprint } = key;
  const signed = context.signature !== undefined;
  if (signed && !isSignedWith(key, context)) {
    return { type: 'rejected', why: 'wrong signature', fingerprint };
  }
  // For what it is becomes known with the command, when the principal is looked up again.
  // Of many keys on offer, one that belongs to somebody says more than those that are nobody's.
  let ofSomebody: string | undefined;
  const principal = await accounts.authenticateKey(key.blob, {
    reading: true,
    onRefused: ({ problem, user }) => (ofSomebody = user && `${problem} ${user}`),
  });
  if (!signed) {
    const why = ofSomebody === undefined ? {} : { why: ofSomebody };
    return { type: 'probe', known: principal !== undefined, fingerprint, ...why };
  }
  if (principal === undefined) {
    return { type: 'rejected', why: ofSomebody ?? 'unknown key', fingerprint };
  }
  const renew = (options: SignInOptions): Promise<Principal | undefined> =>
    accounts.authenticateKey(key.blob, options);
  return { type: 'accepted', who: { principal, key, renew } };
}

/**
 * The same for an OpenSSH certificate. ssh2 knows nothing of them, and hands over their signatures as they came, framed
 * with the name of the plain algorithm.
 */
async function judgeCertificate(
  context: PublicKeyAuthContext,
  {
    authorities,
    remoteAddress,
  }: {
    readonly authorities: Pick<CertificateAuthorities, 'judge'>;
    readonly remoteAddress: string;
  },
): Promise<AuthenticationStep> {
  const certificate = readCertificate(context);
  if (certificate === undefined) return { type: 'rejected', why: 'certificate damaged or forged' };
  const { key } = certificate;
  const { fingerprint } = key;
  const { signature, blob, username } = context;
  const signed = signature !== undefined;
  if (signed && (blob === undefined || !isSshSignature(key, blob, signature))) {
    return { type: 'rejected', why: 'wrong signature', fingerprint };
  }
  const client = { userName: username, remoteAddress };
  const verdict = await authorities.judge(certificate, client);
  if ('problem' in verdict) {
    const why = `certificate refused: ${verdict.problem}`;
    return signed
      ? { type: 'rejected', why, fingerprint }
      : { type: 'probe', known: false, fingerprint, why };
  }
  if (!signed) return { type: 'probe', known: true, fingerprint };
  const renew = async (): Promise<Principal | undefined> => {
    const again = await authorities.judge(certificate, client);
    return 'principal' in again ? again.principal : undefined;
  };
  return {
    type: 'accepted',
    who: { principal: verdict.principal, key, certificate, renew },
  };
}

function readCertificate(context: PublicKeyAuthContext): SshCertificate | undefined {
  try {
    return parseSshCertificate(Uint8Array.from(context.key.data));
  } catch (error) {
    if (error instanceof QuorateError) return undefined;
    throw error;
  }
}

/** The key on offer, if it is of a type that is accepted and its algorithm is one of that type's. */
function readKey(context: PublicKeyAuthContext): SshPublicKey | undefined {
  // ssh2 calls rsa-sha2-256 and -512 `ssh-rsa` with a hash; without one it is RSA with SHA-1, which is refused.
  const isRsa = context.key.algo === 'ssh-rsa';
  if (isRsa && context.hashAlgo !== 'sha256' && context.hashAlgo !== 'sha512') return undefined;
  try {
    const key = parseSshPublicKey(Uint8Array.from(context.key.data));
    return key.type === context.key.algo ? key : undefined;
  } catch (error) {
    if (error instanceof QuorateError) return undefined;
    throw error;
  }
}

function isSignedWith(key: SshPublicKey, context: PublicKeyAuthContext): boolean {
  const { signature, blob } = context;
  if (signature === undefined || blob === undefined) return false;
  try {
    return verify(hashOf(key, context), blob, key.keyObject, signature);
  } catch {
    // OpenSSL refuses to look at a signature that is malformed enough.
    return false;
  }
}

function hashOf(key: SshPublicKey, context: PublicKeyAuthContext): string | null {
  switch (key.type) {
    case 'ssh-ed25519':
      return null;
    case 'ecdsa-sha2-nistp256':
      return 'sha256';
    case 'ecdsa-sha2-nistp384':
      return 'sha384';
    case 'ecdsa-sha2-nistp521':
      return 'sha512';
    case 'ssh-rsa':
      return context.hashAlgo ?? null;
  }
}
