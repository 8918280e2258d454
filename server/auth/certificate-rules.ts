import { BlockList, isIP } from 'node:net';
import type { SshCertificate } from './ssh-certificate.js';
import { SshFieldReader } from './ssh-fields.js';

/** Why the certificate is not valid at that time, or undefined when it is. */
export function validityProblem(certificate: SshCertificate, nowMs: number): string | undefined {
  const now = BigInt(Math.floor(nowMs / 1000));
  if (now < certificate.validAfter) return 'not valid yet';
  return now >= certificate.validBefore ? 'expired' : undefined;
}

/**
 * Why the critical options (PROTOCOL.certkeys) forbid what is offered here, or undefined when they do not.
 * `source-address` is honoured; `force-command` cannot be, since only git's services are run; whatever else there is
 * has to be refused, as critical means.
 */
export function optionProblem(
  certificate: SshCertificate,
  remoteAddress: string,
): string | undefined {
  for (const [name, data] of certificate.criticalOptions) {
    if (name !== 'source-address') return `the critical option ${name} is not supported`;
    if (!allowsAddress(data, remoteAddress)) return 'not for this source address';
  }
  return undefined;
}

/** More ranges than that are an attack on the CPU. */
const maxRanges = 256;

/** False also for a list that cannot be read. */
function allowsAddress(data: Uint8Array, remoteAddress: string): boolean {
  // An IPv4 peer of an IPv6 socket.
  const address = remoteAddress.replace(/^::ffff:(?=\d+\.)/i, '');
  const family = isIP(address);
  if (family === 0) return false;
  try {
    const reader = new SshFieldReader(data, () => new Error('not a string'));
    const ranges = reader.text().split(',');
    reader.end();
    if (ranges.length > maxRanges) return false;
    const allowed = new BlockList();
    for (const range of ranges) {
      const [network = '', bits] = range.split('/');
      const type = isIP(network) === 4 ? 'ipv4' : 'ipv6';
      if (bits === undefined) allowed.addAddress(network, type);
      else if (/^\d{1,3}$/.test(bits)) allowed.addSubnet(network, Number(bits), type);
      else return false;
    }
    return allowed.check(address, family === 4 ? 'ipv4' : 'ipv6');
  } catch {
    return false;
  }
}
