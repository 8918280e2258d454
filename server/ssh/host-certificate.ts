import { parseSshCertificateLine, type SshCertificate } from '../auth/ssh-certificate.js';
import type { HostKey } from './host-keys.js';

/** A certificate for one of the host keys, fit to be shown to clients. */
export interface HostCertificate {
  readonly hostKey: HostKey;
  /** The wire format, as it is shown. */
  readonly blob: Buffer;
  readonly content: SshCertificate;
}

/** Where the certificate of a host key lies, as with sshd: `ssh_host_ed25519_key-cert.pub`. */
export function certificateFileName(hostKey: HostKey): string {
  return `${hostKey.name}-cert.pub`;
}

/**
 * Reads the certificate of a host key from the text of its file. Throws with a sentence that says why it cannot be
 * shown to anybody at `nowMs`.
 */
export function readHostCertificate(
  text: string,
  { hostKey, nowMs }: { readonly hostKey: HostKey; readonly nowMs: number },
): HostCertificate {
  const { certificate: content, blob } = parseSshCertificateLine(text);
  if (content.kind !== 'host') {
    throw new Error('it is a user certificate: sign host keys with ssh-keygen -h');
  }
  if (!Buffer.from(content.key.blob).equals(hostKey.privateKey.getPublicSSH())) {
    throw new Error(`it certifies another key (${content.key.fingerprint}) than ${hostKey.name}`);
  }
  if (content.criticalOptions.size > 0) {
    throw new Error('it has critical options, and clients know none for hosts');
  }
  const problem = timeProblem(content, nowMs);
  if (problem !== undefined) throw new Error(problem);
  return { hostKey, blob, content };
}

/** Why a certificate is not valid now; undefined when it is. */
export function timeProblem(content: SshCertificate, nowMs: number): string | undefined {
  const now = BigInt(Math.floor(nowMs / 1000));
  if (now >= content.validBefore) return `it expired at ${timeText(content.validBefore)}`;
  if (now < content.validAfter) return `it is not valid before ${timeText(content.validAfter)}`;
  return undefined;
}

/** Seconds since the Unix epoch as people read them; the largest number means without end. */
export function timeText(seconds: bigint): string {
  const ms = Number(seconds) * 1000;
  return Math.abs(ms) > maxDateMs ? 'forever' : new Date(ms).toISOString().replace('.000Z', 'Z');
}

/** ECMA-262: the last instant that a `Date` can hold. */
const maxDateMs = 8.64e15;
