import { QuorateError } from '../../backends/contract/errors.js';
import { SshFieldReader, sshField } from './ssh-fields.js';
import { parseSshPublicKey, type SshPublicKey } from './ssh-public-key.js';
import { isSshSignature } from './ssh-signature.js';

/** An OpenSSH certificate (PROTOCOL.certkeys), as it says of itself. Its signature is good; its authority unknown. */
export interface SshCertificate {
  /** The key that was certified. */
  readonly key: SshPublicKey;
  /** Chosen by the authority; 0 when it numbers none. */
  readonly serial: bigint;
  readonly kind: 'user' | 'host';
  readonly keyId: string;
  readonly principals: readonly string[];
  /** Seconds since the Unix epoch, inclusive. */
  readonly validAfter: bigint;
  /** Seconds since the Unix epoch, exclusive. */
  readonly validBefore: bigint;
  /** Name -> data. Whoever does not know one must refuse the certificate. */
  readonly criticalOptions: ReadonlyMap<string, Uint8Array>;
  readonly authority: SshPublicKey;
}

/** Key fields between the nonce and the serial number. */
const keyTypes: Readonly<Record<string, { readonly plain: string; readonly fields: number }>> = {
  'ssh-ed25519-cert-v01@openssh.com': { plain: 'ssh-ed25519', fields: 1 },
  'ecdsa-sha2-nistp256-cert-v01@openssh.com': { plain: 'ecdsa-sha2-nistp256', fields: 2 },
  'ecdsa-sha2-nistp384-cert-v01@openssh.com': { plain: 'ecdsa-sha2-nistp384', fields: 2 },
  'ecdsa-sha2-nistp521-cert-v01@openssh.com': { plain: 'ecdsa-sha2-nistp521', fields: 2 },
  'ssh-rsa-cert-v01@openssh.com': { plain: 'ssh-rsa', fields: 2 },
};

/** ssh-keygen's own limit for principals; options are a handful. Both also bound the work. */
const maxPrincipals = 256;
const maxOptions = 64;

/** Whether the name of a public key algorithm is that of a certificate. */
export function isCertificateAlgorithm(algorithm: string): boolean {
  return algorithm.endsWith('-cert-v01@openssh.com');
}

/**
 * Reads a certificate in wire format and verifies the signature of the authority that it names. Throws
 * `invalid-argument` when it is malformed, of an unknown type, or not signed by that authority.
 */
export function parseSshCertificate(blob: Uint8Array): SshCertificate {
  const reader = new SshFieldReader(blob, malformed);
  const type = keyTypes[reader.text()];
  if (type === undefined) throw malformed();
  reader.bytes();
  const keyStart = reader.position;
  for (let field = 0; field < type.fields; field++) reader.bytes();
  const keyFields = blob.subarray(keyStart, reader.position);
  const key = parseSshPublicKey(
    Uint8Array.from(Buffer.concat([sshField(Buffer.from(type.plain)), keyFields])),
  );
  const serial = reader.uint64();
  const kind = reader.uint32();
  if (kind !== 1 && kind !== 2) throw malformed();
  const keyId = reader.bytes().toString('utf8');
  const principals = readPrincipals(reader.bytes());
  const validAfter = reader.uint64();
  const validBefore = reader.uint64();
  const criticalOptions = readOptions(reader.bytes());
  // Extensions permit what is not offered here (terminals, forwarding); to be ignored when unknown.
  readOptions(reader.bytes());
  reader.bytes();
  const authority = parseSshPublicKey(Uint8Array.from(reader.bytes()));
  const signed = blob.subarray(0, reader.position);
  const signature = reader.bytes();
  reader.end();
  if (!isSshSignature(authority, signed, signature)) throw malformed();
  return {
    key,
    serial,
    kind: kind === 1 ? 'user' : 'host',
    keyId,
    principals,
    validAfter,
    validBefore,
    criticalOptions,
    authority,
  };
}

/** A certificate of an RSA key of 16,384 bits with 256 long principals stays below. */
const maxLineLength = 256 * 1024;

/**
 * Reads the one line of a `-cert.pub` file (`type base64 comment`). Throws `invalid-argument` for anything else, and
 * as `parseSshCertificate` does.
 */
export function parseSshCertificateLine(text: string): {
  readonly certificate: SshCertificate;
  readonly blob: Buffer;
} {
  const [word = '', base64 = ''] = text.trim().split(/[ \t]+/);
  if (text.length > maxLineLength || /[\r\n]/.test(text.trim()) || !isCertificateAlgorithm(word)) {
    throw new QuorateError('invalid-argument', 'this is no line with an SSH certificate');
  }
  const blob = Buffer.from(base64, 'base64');
  if (blob.length === 0 || blob.toString('base64') !== base64) throw malformed();
  const certificate = parseSshCertificate(blob);
  if (new SshFieldReader(blob, malformed).text() !== word) throw malformed();
  return { certificate, blob };
}

function readPrincipals(bytes: Uint8Array): readonly string[] {
  const reader = new SshFieldReader(bytes, malformed);
  const principals: string[] = [];
  while (!reader.atEnd) {
    if (principals.push(reader.bytes().toString('utf8')) > maxPrincipals) throw malformed();
  }
  return principals;
}

/** Names in ascending order, none twice: so a second one of a name cannot hide the first. */
function readOptions(bytes: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const reader = new SshFieldReader(bytes, malformed);
  const options = new Map<string, Uint8Array>();
  while (!reader.atEnd) {
    const name = reader.text();
    if (options.has(name) || options.size >= maxOptions) throw malformed();
    options.set(name, reader.bytes());
  }
  return options;
}

function malformed(): QuorateError {
  return new QuorateError('invalid-argument', 'the certificate is damaged');
}
