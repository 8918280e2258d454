import { QuorateError } from '../backends/contract/errors.js';
import type { Address } from './config.js';

export interface Listening {
  listen(host: string, port: number): Promise<Address>;
}

/**
 * Binds a listener to its configured address, which `key` (also the flag's name) gave. Throws `failed-precondition`
 * with a sentence that says which address it was and what to do.
 */
export async function listenOn(
  key: string,
  listener: Listening,
  address: Address,
): Promise<Address> {
  try {
    return await listener.listen(address.host, address.port);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    const shown = formatAddress(address);
    const message = `${key} cannot listen on ${shown}: ${reasons[code] ?? code}; choose another address with --${key} HOST:PORT`;
    throw new QuorateError('failed-precondition', message, { cause: error });
  }
}

const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program uses it (stop that one, if it is an older server)',
  EACCES: 'this user may not (ports below 1024 need a privilege)',
  EADDRNOTAVAIL: 'this machine has no such address',
  ENOTFOUND: 'no such host name',
  EAI_AGAIN: 'the host name could not be looked up',
};

/** `127.0.0.1:8080`, `[::1]:8080` */
export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A listener on this host listens on all addresses. */
export function isAnyHost(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}

/** Where this machine reaches a listener: one that listens everywhere is reached on a loopback address. */
export function reachableAddress(address: Address): Address {
  if (address.host === '0.0.0.0') return { ...address, host: '127.0.0.1' };
  if (address.host === '::') return { ...address, host: '::1' };
  return address;
}
