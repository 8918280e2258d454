import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { QuorateError } from '../../backends/contract/errors.js';
import { SshFieldReader } from './ssh-fields.js';

/**
 * SSH public keys in their wire format (RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709 section 4) and in the
 * one-line form of `.pub` files.
 */
export interface SshPublicKey {
  readonly type: SshKeyType;
  /** The wire format, exactly as signatures and fingerprints see it. */
  readonly blob: Uint8Array;
  /** `SHA256:...` as `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
  /** For verifying signatures with `node:crypto`. */
  readonly keyObject: KeyObject;
}

export type SshKeyType =
  | 'ssh-ed25519'
  | 'ecdsa-sha2-nistp256'
  | 'ecdsa-sha2-nistp384'
  | 'ecdsa-sha2-nistp521'
  | 'ssh-rsa';

interface Curve {
  readonly wireName: string;
  readonly jwkName: string;
  readonly coordinateBytes: number;
}

const curves: Readonly<Record<string, Curve>> = {
  'ecdsa-sha2-nistp256': { wireName: 'nistp256', jwkName: 'P-256', coordinateBytes: 32 },
  'ecdsa-sha2-nistp384': { wireName: 'nistp384', jwkName: 'P-384', coordinateBytes: 48 },
  'ecdsa-sha2-nistp521': { wireName: 'nistp521', jwkName: 'P-521', coordinateBytes: 66 },
};

/** NIST SP 800-131A: below 2,048 bits RSA is broken enough. Above 16,384 (ssh-keygen's own limit) it is a CPU attack. */
const minRsaBits = 2048;
const maxRsaBits = 16_384;

/** An RSA key of 16,384 bits is 2.8 KB in base64; what is left is room for the comment. */
const maxLineLength = 8192;
const maxCommentLength = 256;

/** `SHA256:` and the unpadded base64 of the blob's SHA-256, as OpenSSH prints it. */
export function sshFingerprint(blob: Uint8Array): string {
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;
}

/**
 * Reads a key in wire format. Throws `invalid-argument` with a sentence for the user when it is malformed, of a type
 * that is not accepted, or too weak.
 */
export function parseSshPublicKey(blob: Uint8Array): SshPublicKey {
  const reader = new SshFieldReader(blob, malformed);
  const type = reader.text();
  const problem = typeProblem(type);
  if (problem !== undefined) throw invalid(problem);
  const key = { blob, fingerprint: sshFingerprint(blob) };
  if (type === 'ssh-ed25519') {
    const point = reader.bytes();
    reader.end();
    if (point.length !== 32) throw malformed();
    return {
      ...key,
      type,
      keyObject: importJwk({ kty: 'OKP', crv: 'Ed25519', x: base64url(point) }),
    };
  }
  if (type === 'ssh-rsa') return { ...key, type, keyObject: readRsa(reader) };
  if (
    type === 'ecdsa-sha2-nistp256' ||
    type === 'ecdsa-sha2-nistp384' ||
    type === 'ecdsa-sha2-nistp521'
  ) {
    return { ...key, type, keyObject: readEcdsa(reader, type) };
  }
  throw invalid('this type of SSH key is not supported');
}

/**
 * Reads one line of a public key file (`type base64 comment`). Throws `invalid-argument`, and never repeats any of the
 * input in the message: it may be a private key.
 */
export function parseSshPublicKeyLine(text: string): {
  readonly key: SshPublicKey;
  readonly comment: string;
} {
  const line = onlyLine(text);
  const [word = '', base64 = '', ...rest] = line.split(/[ \t]+/);
  const problem = typeProblem(word);
  if (problem !== undefined) {
    const keyBehindOptions = /(?:^|[\s,"])(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+[ \t]+AAAA/.test(line);
    throw invalid(
      keyBehindOptions && !isKnownTypeName(word)
        ? 'options in front of the key are not accepted: paste the line of the .pub file as it is'
        : problem,
    );
  }
  const blob = Buffer.from(base64, 'base64');
  if (blob.length === 0 || blob.toString('base64') !== base64) throw malformed();
  const key = parseSshPublicKey(blob);
  if (key.type !== word) throw invalid('the key is not of the type that its line names');
  return { key, comment: cleanComment(rest.join(' ')) };
}

function onlyLine(text: string): string {
  if (/PRIVATE KEY|PuTTY-User-Key-File|b3BlbnNzaC1rZXktdjE/.test(text)) {
    throw invalid(
      'this is a private key: keep it to yourself (it was not stored) and add the .pub file that belongs to it',
    );
  }
  if (text.includes('BEGIN SSH2 PUBLIC KEY')) {
    throw invalid('this is an RFC 4716 key file: convert it with ssh-keygen -i -f FILE');
  }
  if (text.length > maxLineLength)
    throw invalid(`a public key is at most ${maxLineLength} characters long`);
  const lines = text.split(/\r\n|\n|\r/).filter((line) => line.trim() !== '');
  if (lines.length === 0) throw invalid('there is no public key in the input');
  if (lines.length > 1) throw invalid('one public key at a time: the input has more than one line');
  return (lines[0] ?? '').trim();
}

function isKnownTypeName(word: string): boolean {
  return /^(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp\d+|sk-[a-z0-9-]+)(?:-cert-v01)?(?:@openssh\.com)?$/.test(
    word,
  );
}

function typeProblem(type: string): string | undefined {
  if (type === 'ssh-ed25519' || type === 'ssh-rsa' || Object.hasOwn(curves, type)) return undefined;
  if (type.includes('-cert-v01')) {
    return 'SSH certificates are not accepted: add the plain public key';
  }
  if (type === 'ssh-dss')
    return 'DSA keys are not accepted: they are too weak; make an ed25519 key';
  if (type.startsWith('sk-')) {
    return 'keys on security devices (sk-...) are not supported yet: add an ed25519, ECDSA or RSA key';
  }
  return 'this is not a public key that can be used here: ed25519, ECDSA (nistp256, 384, 521) and RSA are accepted';
}

function readRsa(reader: SshFieldReader): KeyObject {
  const exponent = reader.positiveInteger();
  const modulus = reader.positiveInteger();
  reader.end();
  const bits = modulus.length * 8 - Math.clz32(modulus[0] ?? 0) + 24;
  if (bits < minRsaBits)
    throw invalid(`RSA keys need at least ${minRsaBits} bits; this one has ${bits}`);
  if (bits > maxRsaBits)
    throw invalid(`RSA keys have at most ${maxRsaBits} bits; this one has ${bits}`);
  // A huge exponent makes each verification expensive; ssh-keygen makes 65537.
  const last = exponent[exponent.length - 1] ?? 0;
  if (exponent.length > 8 || last % 2 === 0 || (exponent.length === 1 && last < 3))
    throw malformed();
  return importJwk({ kty: 'RSA', n: base64url(modulus), e: base64url(exponent) });
}

function readEcdsa(reader: SshFieldReader, type: string): KeyObject {
  const curve = curves[type];
  const curveName = reader.text();
  const point = reader.bytes();
  reader.end();
  if (curve === undefined || curveName !== curve.wireName) throw malformed();
  const size = curve.coordinateBytes;
  // 4 marks an uncompressed point; RFC 5656 leaves others optional and nobody writes them.
  if (point.length !== 1 + 2 * size || point[0] !== 4) throw malformed();
  const x = base64url(point.subarray(1, 1 + size));
  const y = base64url(point.subarray(1 + size));
  return importJwk({ kty: 'EC', crv: curve.jwkName, x, y });
}

/** node:crypto checks here that a point lies on its curve. */
function importJwk(jwk: Record<string, string>): KeyObject {
  try {
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch (cause) {
    throw new QuorateError('invalid-argument', malformed().message, { cause });
  }
}

function cleanComment(comment: string): string {
  return comment
    .replace(/[\x00-\x1f\x7f-\x9f]/g, '')
    .slice(0, maxCommentLength)
    .trim();
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url');
}

function malformed(): QuorateError {
  return invalid('the public key is damaged: paste the whole line of the .pub file');
}

function invalid(message: string): QuorateError {
  return new QuorateError('invalid-argument', message);
}
