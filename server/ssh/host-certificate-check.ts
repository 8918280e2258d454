import {
  createHash,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { duplexPair, type Duplex } from 'node:stream';
import ssh2 from 'ssh2';
import type { Clock } from '../../backends/contract/environment.js';
import { sshField, SshFieldReader } from '../auth/ssh-fields.js';
import { isSshSignature } from '../auth/ssh-signature.js';
import type { HostCertificate } from './host-certificate.js';
import {
  certificateAlgorithms,
  certifiedHostKeys,
  presentHostCertificates,
} from './ssh2-host-certificates.js';

/** Long enough for any machine: nothing but this process takes part. */
const timeoutMs = 20_000;

/**
 * Tries out whether the installed ssh2 shows a certificate as clients want it: does the key exchange of a client, in
 * memory, up to the server's signature, for each of the certificate's algorithms. Rejects, saying what was wrong.
 */
export async function checkHostCertificate(
  certificate: HostCertificate,
  { clock, present = presentHostCertificates }: CheckOptions,
): Promise<void> {
  const server = new ssh2.Server({
    hostKeys: certifiedHostKeys([certificate]).map((key) => ({ key })),
    algorithms: { kex: [kex], cipher: [cipher], hmac: [mac], compress: ['none'] },
  });
  server.on('connection', (connection) => {
    connection.on('error', () => undefined);
    present(connection, [certificate]);
  });
  for (const { algorithm, signature } of certificateAlgorithms(certificate)) {
    const shown = await exchange(server, algorithm, clock);
    const name = new SshFieldReader(shown.signature, malformed).text();
    if (!shown.hostKey.equals(certificate.blob)) throw new Error('another key was shown');
    if (name !== signature) throw new Error(`the signature is called ${name}, not ${signature}`);
    if (!isSshSignature(certificate.content.key, shown.hash, shown.signature)) {
      throw new Error('the signature does not fit');
    }
  }
}

export interface CheckOptions {
  readonly clock: Clock;
  /** For tests. */
  readonly present?: typeof presentHostCertificates;
}

const kex = 'curve25519-sha256';
const cipher = 'aes128-ctr';
const mac = 'hmac-sha2-256';

/** What a server sends in a key exchange, and the hash that it signs. */
interface Exchanged {
  readonly hostKey: Buffer;
  readonly signature: Buffer;
  readonly hash: Buffer;
}

async function exchange(server: ssh2.Server, algorithm: string, clock: Clock): Promise<Exchanged> {
  // Its documentation takes any stream, its types a socket.
  const streams: { injectSocket(stream: Duplex): void } = server;
  const [near, far] = duplexPair();
  near.on('error', () => undefined);
  const ended = new AbortController();
  const late = clock.sleep(timeoutMs, ended.signal).then(() => {
    throw new Error('no answer');
  });
  late.catch(() => undefined);
  try {
    streams.injectSocket(far);
    return await Promise.race([playClient(near, algorithm), late]);
  } finally {
    ended.abort();
    near.destroy();
    far.destroy();
  }
}

/** The client's half of RFC 4253 sections 7 and 8 with the method of RFC 8731, up to the server's reply. */
async function playClient(stream: Duplex, algorithm: string): Promise<Exchanged> {
  const input = new ByteQueue(stream);
  const greeting = Buffer.from('SSH-2.0-check');
  stream.write(`${greeting.toString()}\r\n`);
  const serverGreeting = await input.line();
  const serverInit = await readPacket(input);
  const ours = initOf(algorithm);
  stream.write(packet(ours));
  const { privateKey, publicKey } = generateKeyPairSync('x25519');
  const point = rawPoint(publicKey);
  stream.write(packet(Buffer.concat([Buffer.of(30), sshField(point)])));
  const reader = new SshFieldReader((await readPacket(input)).subarray(1), malformed);
  const [hostKey, serverPoint, signature] = [reader.bytes(), reader.bytes(), reader.bytes()];
  reader.end();
  const secret = diffieHellman({ privateKey, publicKey: pointKey(serverPoint) });
  const hash = createHash('sha256');
  for (const field of [greeting, serverGreeting, ours, serverInit, hostKey, point, serverPoint]) {
    hash.update(sshField(field));
  }
  return { hostKey, signature, hash: hash.update(sshField(positive(secret))).digest() };
}

function initOf(algorithm: string): Buffer {
  const lists = [kex, algorithm, cipher, cipher, mac, mac, 'none', 'none', '', ''];
  return Buffer.concat([
    Buffer.of(20),
    Buffer.alloc(16),
    ...lists.map((list) => sshField(Buffer.from(list))),
    Buffer.alloc(5),
  ]);
}

/** An unencrypted packet (RFC 4253 section 6): a multiple of 8 bytes, 4 of them padding at least. */
function packet(payload: Buffer): Buffer {
  const padding = 4 + ((8 - ((payload.length + 9) % 8)) % 8);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(1 + payload.length + padding);
  head[4] = padding;
  return Buffer.concat([head, payload, Buffer.alloc(padding)]);
}

async function readPacket(input: ByteQueue): Promise<Buffer> {
  const length = (await input.take(4)).readUInt32BE(0);
  const body = await input.take(length);
  return body.subarray(1, length - (body[0] ?? 0));
}

/** An `mpint` (RFC 4251 section 5) that is not negative, without its length. */
function positive(bytes: Buffer): Buffer {
  const start = bytes.findIndex((byte) => byte !== 0);
  const rest = bytes.subarray(start === -1 ? bytes.length : start);
  return (rest[0] ?? 0) < 0x80 ? rest : Buffer.concat([Buffer.of(0), rest]);
}

function rawPoint(key: KeyObject): Buffer {
  return Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url');
}

function pointKey(point: Buffer): KeyObject {
  const jwk = { kty: 'OKP', crv: 'X25519', x: point.toString('base64url') };
  return createPublicKey({ key: jwk, format: 'jwk' });
}

function malformed(): Error {
  return new Error('the answer cannot be read');
}

/** What a stream brought, to be taken in pieces. Rejects when it ends before. */
class ByteQueue {
  readonly #chunks: AsyncIterator<Buffer>;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(stream: Duplex) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async take(count: number): Promise<Buffer> {
    while (this.#bytes.length < count) await this.#more();
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }

  async line(): Promise<Buffer> {
    while (!this.#bytes.includes('\r\n')) await this.#more();
    const taken = await this.take(this.#bytes.indexOf('\r\n'));
    await this.take(2);
    return taken;
  }

  async #more(): Promise<void> {
    const { done, value } = await this.#chunks.next();
    if (done === true) throw new Error('ssh2 ended the connection');
    this.#bytes = Buffer.concat([this.#bytes, value]);
  }
}
