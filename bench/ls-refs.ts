import net from 'node:net';

/** One-branch `ls-refs` of protocol v2 (gitprotocol-v2) as an HTTP/1.1 request whose connection stays open. */
export function lsRefsRequest(url: URL, ref: string): Buffer {
  const lines = ['command=ls-refs\n', 'agent=bench\n', 'object-format=sha1'];
  const args = ['peel\n', 'symrefs\n', `ref-prefix ${ref}\n`];
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
  /** Refs asked for, in turn. */
  readonly refs: readonly string[];
  readonly connections: number;
  readonly durationMs: number;
}

/** Asks over some connections, one request after the other on each, for a time. Resolves with the number of replies. */
export async function runLsRefsLoad(load: LsRefsLoad): Promise<number> {
  const endsAt = performance.now() + load.durationMs;
  const requests = load.refs.map((ref) => ({ ref, bytes: lsRefsRequest(load.url, ref) }));
  const counts = await Promise.all(
    Array.from({ length: load.connections }, (_, index) =>
      askRepeatedly(load.url, { requests, from: index, endsAt }),
    ),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

interface Questions {
  readonly requests: readonly { readonly ref: string; readonly bytes: Buffer }[];
  readonly from: number;
  readonly endsAt: number;
}

/** A reply that does not come for this long fails the case. */
const replyTimeoutMs = 30_000;

function askRepeatedly(url: URL, { requests, from, endsAt }: Questions): Promise<number> {
  return new Promise((resolve, reject) => {
    let asked = from;
    let answered = 0;
    let received: Buffer = Buffer.alloc(0);
    const current = () => requests[asked % requests.length];
    const socket = net.connect(Number(url.port), url.hostname);
    const ask = (): void => {
      const request = current();
      if (request === undefined || performance.now() >= endsAt) {
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
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      try {
        const reply = parseReply(received);
        if (reply === undefined) return;
        const ref = current()?.ref ?? '';
        if (reply.status !== 200 || !reply.body.includes(` ${ref}`)) {
          throw new Error(`ls-refs: ${reply.status} ${reply.body.toString('latin1')}`);
        }
        received = received.subarray(reply.length);
        answered += 1;
        asked += 1;
        ask();
      } catch (error) {
        socket.destroy(error instanceof Error ? error : new Error(String(error)));
      }
    });
  });
}
