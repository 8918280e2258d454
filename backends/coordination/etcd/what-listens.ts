import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { connectTo, type MemberPlace } from './member-socket.js';

/** Whoever has a busy machine is to be told the right thing, too. */
const probeTimeoutMs = 5_000;

/** For people: what there is at an address at which no etcd answers, and, where that can be seen, what to do about it. */
export async function whatListens(place: MemberPlace): Promise<string> {
  const { endpoint } = place;
  const colon = endpoint.lastIndexOf(':');
  const host = endpoint.slice(0, colon).replaceAll(/[[\]]/g, '');
  const port = Number(endpoint.slice(colon + 1));
  const absence = await absenceOf({ host, port, endpoint });
  if (absence !== undefined) return absence;
  const misfit =
    place.tls === undefined ? await unexpectedTls(host, port) : await misfitOfTls(place);
  return misfit === undefined
    ? `what listens on ${endpoint} is no etcd that we may use, or is too busy to answer`
    : `${endpoint} ${misfit}`;
}

/** Undefined when there is somebody who takes connections. */
function absenceOf({
  host,
  port,
  endpoint,
}: {
  readonly host: string;
  readonly port: number;
  readonly endpoint: string;
}): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const finish = (answer: string | undefined): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(probeTimeoutMs, () => finish(`${endpoint} does not answer`));
    socket.on('connect', () => finish(undefined));
    socket.on('error', ({ code }: NodeJS.ErrnoException) => {
      const unknown = code === 'ENOTFOUND' || code === 'EAI_AGAIN';
      finish(unknown ? `no address is known of ${host}` : `nothing listens on ${endpoint}`);
    });
  });
}

/** Without certificates of ours: whether TLS is spoken there. */
function unexpectedTls(host: string, port: number): Promise<string | undefined> {
  const words = 'speaks TLS: name the authority of its certificate with etcd.ca';
  return new Promise((resolve) => {
    // Nothing is said over it: whose certificate it is does not matter.
    const socket = connectTls({ host, port, rejectUnauthorized: false });
    const finish = (answer: string | undefined): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(probeTimeoutMs, () => finish(undefined));
    socket.on('secureConnect', () => finish(words));
    socket.on('error', (error) => finish(isAlert(error) ? words : undefined));
    socket.on('close', () => finish(undefined));
  });
}

/** With what is configured: which of it does not fit. */
function misfitOfTls(place: MemberPlace): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connectTo(place);
    let isSecure = false;
    const finish = (answer: string | undefined): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(probeTimeoutMs, () => finish(undefined));
    // With TLS 1.3 a client's certificate is judged after this; who has taken it says something of HTTP/2 at once.
    socket.on('secureConnect', () => {
      isSecure = true;
    });
    socket.on('data', () => finish(undefined));
    socket.on('error', (error) => finish(wordsOf(error, { ...place, isSecure })));
    socket.on('close', () => finish(isSecure ? ownCertificate(place) : noTls));
  });
}

const noTls = 'does not speak TLS, which it is asked for by etcd.ca';

function wordsOf(
  error: NodeJS.ErrnoException,
  place: MemberPlace & { readonly isSecure: boolean },
): string | undefined {
  const code = error.code ?? '';
  if (place.isSecure || isAlert(error)) return ownCertificate(place);
  if (/CERT|SIGNATURE|ISSUER/.test(code)) {
    return `has a certificate that is not taken (${error.message}): it has to be of an authority in etcd.ca, and good for the name or address that coordinator gives`;
  }
  return noTls;
}

function ownCertificate({ tls }: MemberPlace): string {
  return tls?.cert === undefined
    ? 'wants a certificate of its clients: give one with etcd.cert and etcd.key'
    : 'does not take the certificate in etcd.cert, which has to be of an authority that it trusts, and good for clients';
}

/** Sent by the other side, in the words of TLS. */
function isAlert({ code = '' }: NodeJS.ErrnoException): boolean {
  return code.includes('ALERT');
}
