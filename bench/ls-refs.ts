import net from 'node:net';

/** What is asked for, and what has to be in the answer. */
export interface LsRefsQuestion {
  /** Absent: all refs. */
  readonly prefix?: string;
  /** A ref that the answer names. */
  readonly names: string;
}

/** `ls-refs` of protocol v2 (gitprotocol-v2) as an HTTP/1.1 request whose connection stays open. */
export function lsRefsRequest(url: URL, prefix?: string): Buffer {
  const lines = ['command=ls-refs\n', 'agent=bench\n', 'object-format=sha1'];
  const args = ['peel\n', 'symrefs\n'];
  if (prefix !== undefined) args.push(`ref-prefix ${prefix}\n`);
  const body = `${lines.map(packet).join('')}0001${args.map(packet).join('')}0000`;
  const head = [
    `POST ${url.pathname}/git-upload-pack HTTP/1.1`,
    `Host: ${url.host}`,
    'User-Agent: git/2.0 (bench)',
    'Accept: application/x-git-upload-pack-result',
    'Content-Type: application/x-git-upload-pack-request',
    'Git-Protocol: version=2',
    `Content-Length: ${body.length}`,
  ];
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`, 'latin1');
}

function packet(payload: string): string {
  return (payload.length + 4).toString(16).padStart(4, '0') + payload;
}

export interface HttpReply {
  readonly status: number;
  readonly body: Buffer;
  /** Bytes of the whole reply. */
  readonly length: number;
}

/** The first reply in these bytes (RFC 9112), with its body's framing taken off; undefined when it is not whole yet. */
export function parseReply(bytes: Buffer): HttpReply | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd === -1) return undefined;
  const head = bytes.toString('latin1', 0, headEnd);
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
  const bodyStart = headEnd + 4;
  if (/^transfer-encoding: *chunked$/im.test(head)) {
    const chunks = parseChunks(bytes, bodyStart);
    return chunks === undefined ? undefined : { status, ...chunks };
  }
  const stated = /^content-length: *(\d+)$/im.exec(head)?.[1];
  if (stated === undefined) throw new Error(`a reply without a length: ${head}`);
  const length = bodyStart + Number(stated);
  if (bytes.length < length) return undefined;
  return { status, body: bytes.subarray(bodyStart, length), length };
}

function parseChunks(bytes: Buffer, start: number): { body: Buffer; length: number } | undefined {
  const parts: Buffer[] = [];
  for (let at = start; ;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd === -1) return undefined;
    const size = Number.parseInt(bytes.toString('latin1', at, lineEnd), 16);
    if (Number.isNaN(size)) throw new Error('a chunk without a size');
    const chunkEnd = lineEnd + 2 + size;
    if (bytes.length < chunkEnd + 2) return undefined;
    if (size === 0) return { body: Buffer.concat(parts), length: chunkEnd + 2 };
    parts.push(bytes.subarray(lineEnd + 2, chunkEnd));
    at = chunkEnd + 2;
  }
}

export interface LsRefsLoad {
  readonly url: URL;
  /** Asked in turn. */
  readonly questions: readonly LsRefsQuestion[];
  readonly connections: number;
  readonly durationMs: number;
}

/** Asks over some connections, one request after the other on each, for a time and at least once. Resolves with the number of replies. */
export async function runLsRefsLoad(load: LsRefsLoad): Promise<number> {
  const endsAt = performance.now() + load.durationMs;
  const requests = load.questions.map(({ prefix, names }) => {
    return { names, bytes: lsRefsRequest(load.url, prefix) };
  });
  const counts = await Promise.all(
    Array.from({ length: load.connections }, (_, index) =>
      askRepeatedly(load.url, { requests, from: index, endsAt }),
    ),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

interface Questions {
  readonly requests: readonly { readonly names: string; readonly bytes: Buffer }[];
  readonly from: number;
  readonly endsAt: number;
}

/** What came of a reply. A long one is put together when about as much is there as the one before it took. */
class Received {
  #parts: Buffer[] = [];
  #bytes = 0;
  #usualBytes = 0;

  add(part: Buffer): HttpReply | undefined {
    this.#parts.push(part);
    this.#bytes += part.length;
    // Replies of one kind differ by a few bytes in how they are cut into chunks.
    if (this.#bytes < this.#usualBytes * 0.98) return undefined;
    const bytes = this.#parts.length === 1 ? part : Buffer.concat(this.#parts);
    const reply = parseReply(bytes);
    this.#parts = [reply === undefined ? bytes : bytes.subarray(reply.length)];
    if (reply === undefined) return undefined;
    this.#bytes -= reply.length;
    this.#usualBytes = reply.length;
    return reply;
  }
}

/** A reply that does not come for this long fails the case. */
const replyTimeoutMs = 30_000;

function askRepeatedly(url: URL, { requests, from, endsAt }: Questions): Promise<number> {
  return new Promise((resolve, reject) => {
    let asked = from;
    let answered = 0;
    const received = new Received();
    const current = () => requests[asked % requests.length];
    const socket = net.connect(Number(url.port), url.hostname);
    const ask = (): void => {
      const request = current();
      if (request === undefined || (answered > 0 && performance.now() >= endsAt)) {
        socket.destroy();
        resolve(answered);
      } else socket.write(request.bytes);
    };
    socket.setNoDelay(true);
    socket.setTimeout(replyTimeoutMs, () => socket.destroy(new Error('no reply to ls-refs')));
    socket.once('connect', ask);
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('the server closed the connection')));
    socket.on('data', (chunk: Buffer) => {
      try {
        const reply = received.add(chunk);
        if (reply === undefined) return;
        const names = current()?.names ?? '';
        if (reply.status !== 200 || !reply.body.includes(` ${names}`)) {
          throw new Error(`ls-refs: ${reply.status} ${reply.body.toString('latin1', 0, 1000)}`);
        }
        answered += 1;
        asked += 1;
        ask();
      } catch (error) {
        socket.destroy(error instanceof Error ? error : new Error(String(error)));
      }
    });
  });
}
