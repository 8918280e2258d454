import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

export interface MemberPlace {
  /** `HOST:PORT`, an IPv6 address in brackets. */
  readonly endpoint: string;
  /** As in `EtcdSettings`. */
  readonly tls?:
    | { readonly ca: Uint8Array; readonly cert?: Uint8Array; readonly key?: Uint8Array }
    | undefined;
}

/** A socket that is about to be connected, for HTTP/2. With TLS it is good only if its `alpnProtocol` is `h2`. */
export function connectTo({ endpoint, tls }: MemberPlace): Socket {
  const colon = endpoint.lastIndexOf(':');
  const host = endpoint.slice(0, colon).replaceAll(/[[\]]/g, '');
  const port = Number(endpoint.slice(colon + 1));
  if (tls === undefined) return connectTcp({ host, port });
  const { ca, cert, key } = tls;
  return connectTls({
    host,
    port,
    ca: Buffer.from(ca),
    ...(cert === undefined ? {} : { cert: Buffer.from(cert) }),
    ...(key === undefined ? {} : { key: Buffer.from(key) }),
    ALPNProtocols: ['h2'],
    ...(isIP(host) === 0 ? { servername: host } : {}),
  });
}
