import type { Address, Config } from './config.js';
import type { ServerFile } from './data-directory.js';
import { formatAddress, reachableAddress } from './listen.js';

/** Where this machine reaches the listeners. */
export function serverFile(
  addresses: { http: Address; ssh: Address; ops: Address },
  { config, version }: { readonly config: Config; readonly version: string },
): ServerFile {
  const ssh = reachableAddress(addresses.ssh);
  const certFile = config['tls.cert'];
  const scheme = certFile === undefined ? 'http' : 'https';
  return {
    httpUrl: `${scheme}://${formatAddress(reachableAddress(addresses.http))}`,
    ...(certFile === undefined ? {} : { tlsCertFile: certFile }),
    sshUrl: `ssh://git@${formatAddress(ssh)}`,
    sshHost: ssh.host,
    sshPort: ssh.port,
    opsUrl: `http://${formatAddress(reachableAddress(addresses.ops))}`,
    pid: process.pid,
    version,
  };
}
