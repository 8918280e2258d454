import { verify } from 'node:crypto';
import { QuorateError } from '../../backends/contract/errors.js';
import { SshFieldReader } from './ssh-fields.js';
import type { SshKeyType, SshPublicKey } from './ssh-public-key.js';

/**
 * Whether `signature`, framed as SSH does it (RFC 4253 section 6.6: name of the algorithm, then the signature), is that
 * of `key` over `data`. RSA with SHA-2 only (RFC 8332). Never throws.
 */
export function isSshSignature(
  key: SshPublicKey,
  data: Uint8Array,
  signature: Uint8Array,
): boolean {
  try {
    const reader = new SshFieldReader(signature, malformed);
    const algorithm = reader.text();
    const value = reader.bytes();
    reader.end();
    const scheme = schemes[algorithm];
    if (scheme === undefined || scheme.type !== key.type) return false;
    const { hash, coordinateBytes } = scheme;
    if (coordinateBytes === undefined) return verify(hash, data, key.keyObject, value);
    const fixed = fixedLength(value, coordinateBytes);
    return verify(hash, data, { key: key.keyObject, dsaEncoding: 'ieee-p1363' }, fixed);
  } catch {
    // OpenSSL refuses to look at a signature that is malformed enough.
    return false;
  }
}

interface Scheme {
  readonly type: SshKeyType;
  readonly hash: string | null;
  /** ECDSA only. */
  readonly coordinateBytes?: number;
}

const schemes: Readonly<Record<string, Scheme>> = {
  'ssh-ed25519': { type: 'ssh-ed25519', hash: null },
  'ecdsa-sha2-nistp256': { type: 'ecdsa-sha2-nistp256', hash: 'sha256', coordinateBytes: 32 },
  'ecdsa-sha2-nistp384': { type: 'ecdsa-sha2-nistp384', hash: 'sha384', coordinateBytes: 48 },
  'ecdsa-sha2-nistp521': { type: 'ecdsa-sha2-nistp521', hash: 'sha512', coordinateBytes: 66 },
  'rsa-sha2-256': { type: 'ssh-rsa', hash: 'sha256' },
  'rsa-sha2-512': { type: 'ssh-rsa', hash: 'sha512' },
};

/** The two integers of an ECDSA signature (RFC 5656 section 3.1.2), each padded to its curve's length. */
function fixedLength(value: Uint8Array, coordinateBytes: number): Buffer {
  const reader = new SshFieldReader(value, malformed);
  const integers = [reader.positiveInteger(), reader.positiveInteger()];
  reader.end();
  return Buffer.concat(
    integers.map((integer) => {
      if (integer.length > coordinateBytes) throw malformed();
      return Buffer.concat([Buffer.alloc(coordinateBytes - integer.length), integer]);
    }),
  );
}

function malformed(): QuorateError {
  return new QuorateError('invalid-argument', 'the signature is damaged');
}
