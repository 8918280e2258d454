import type { Address, Config } from './config.js';
import type { ServerFile } from './data-directory.js';
import { formatAddress, isAnyHost, reachableAddress } from './listen.js';

/** Where the listeners are bound. */
export interface BoundAddresses {
  readonly http: Address;
  readonly ssh: Address;
  readonly ops: Address;
}

export type ServerUrls = Pick<ServerFile, 'httpUrl' | 'sshUrl' | 'opsUrl'>;

/** Where this machine reaches the listeners: for commands that run beside the server. */
export function serverFile(
  addresses: BoundAddresses,
  { config, version }: { readonly config: Pick<Config, 'tls.cert'>; readonly version: string },
): ServerFile {
  const ssh = reachableAddress(addresses.ssh);
  const certFile = config['tls.cert'];
  return {
    ...urlsOf(addresses, { config, place: reachableAddress }),
    ...(certFile === undefined ? {} : { tlsCertFile: certFile }),
    sshHost: ssh.host,
    sshPort: ssh.port,
    pid: process.pid,
    version,
  };
}

/** Where other machines reach them: for whoever asks from afar. `ownHost` stands for a listener on all addresses. */
export function urlsFromAfar(
  addresses: BoundAddresses,
  { config, ownHost }: { readonly config: Pick<Config, 'tls.cert'>; readonly ownHost: string },
): ServerUrls {
  const place = (address: Address): Address =>
    isAnyHost(address.host) ? { ...address, host: ownHost } : address;
  return urlsOf(addresses, { config, place });
}

function urlsOf(
  { http, ssh, ops }: BoundAddresses,
  {
    config,
    place,
  }: {
    readonly config: Pick<Config, 'tls.cert'>;
    readonly place: (address: Address) => Address;
  },
): ServerUrls {
  const scheme = config['tls.cert'] === undefined ? 'http' : 'https';
  return {
    httpUrl: `${scheme}://${formatAddress(place(http))}`,
    sshUrl: `ssh://git@${formatAddress(place(ssh))}`,
    opsUrl: `http://${formatAddress(place(ops))}`,
  };
}
