import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { pickPort } from '../../contract/testing/ports.js';
import { flag, frame, frameHeadBytes, frameType, readFrameHead } from './frames.js';
import { encodeHeaders, HeaderReader, type Headers } from './header-block.js';

const tableOfNothing = Buffer.from([0, 1, 0, 0, 0, 0]);

/** What Node's HTTP/2 server answers to these values: the same ones, in a block that it has made. */
async function echoed(values: readonly string[]): Promise<readonly Headers[]> {
  const port = await pickPort();
  const server = createServer();
  server.on('stream', (stream, headers) => {
    stream.respond({ ':status': 404, echo: String(headers['asked']) }, { endStream: true });
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect(port, '127.0.0.1');
  try {
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    socket.write(frame(frameType.settings, 0, 0, tableOfNothing));
    for (const [index, value] of values.entries()) {
      const block = encodeHeaders([
        { name: ':method', value: 'POST' },
        { name: ':scheme', value: 'http' },
        { name: ':path', value: '/' },
        { name: ':authority', value: 'here' },
        { name: 'asked', value, secret: index % 2 === 0 },
      ]);
      const flags = flag.endHeaders | flag.endStream;
      socket.write(frame(frameType.headers, flags, 1 + 2 * index, block));
    }
    const reader = new HeaderReader();
    const answers = new Map<number, Headers>();
    let bytes = Buffer.alloc(0);
    for await (const chunk of socket) {
      bytes = Buffer.concat([bytes, chunk]);
      for (let head = readFrameHead(bytes, 0); head !== undefined;) {
        const end = frameHeadBytes + head.size;
        if (bytes.length < end) break;
        const block = bytes.subarray(frameHeadBytes, end);
        if (head.type === frameType.headers) answers.set(head.id, reader.read(Buffer.from(block)));
        bytes = bytes.subarray(end);
        head = readFrameHead(bytes, 0);
      }
      if (answers.size === values.length) break;
    }
    return values.flatMap((_, index) => answers.get(1 + 2 * index) ?? []);
  } finally {
    socket.destroy();
    server.close();
  }
}

test("what Node's HTTP/2 reads and writes is read and written alike", async () => {
  const allowed = [9, ...Array.from({ length: 224 }, (_, n) => 32 + n)].filter((n) => n !== 127);
  // Short codes around them, so that the shorter form of each is the coded one.
  const values = [
    '',
    '0',
    'a'.repeat(2_000),
    ...allowed.map((byte) => `aeiost012${String.fromCharCode(byte)}aeiost012aeiost`),
  ];
  const answers = await echoed(values);
  assert.deepEqual(
    answers.map((headers) => headers.get('echo')),
    values,
  );
  assert.ok(answers.every((headers) => headers.get(':status') === '404'));
});

test('what refers to a dynamic table, or is cut, is refused', () => {
  const reader = new HeaderReader();
  const field = encodeHeaders([{ name: 'grpc-status', value: '0' }]);
  assert.deepEqual([...reader.read(field)], [['grpc-status', '0']]);
  assert.deepEqual([...reader.read(Buffer.from([0x20, 0x88]))], [[':status', '200']]);
  for (let cut = 1; cut < field.length; cut += 1) {
    assert.throws(() => reader.read(field.subarray(0, cut)), /cut/);
  }
  const nonsense = [
    [0x80],
    [0xbe],
    [0x3f, 0x01],
    [0x7f, 0x00, 0],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    [0x00, 0x81, 0x00, 0x00],
    [0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00],
  ];
  for (const bytes of nonsense) assert.throws(() => reader.read(Buffer.from(bytes)), String(bytes));
});

test('codes of bytes that Node refuses in headers are those of the standard', () => {
  // RFC 7541, appendix B: 0 is ff c0 (13 bits), 127 ff ff ff c (28 bits); padded with ones.
  const reader = new HeaderReader();
  const coded = (...code: readonly number[]) => {
    const block = Buffer.from([0x00, 1, 0x78, 0x80 + code.length, ...code]);
    return reader.read(block).get('x');
  };
  assert.equal(coded(0xff, 0xc7), '\0');
  assert.equal(coded(0xff, 0xff, 0xff, 0xcf), '\x7f');
  assert.equal(coded(0xff, 0xff, 0xff, 0xf3), '\n');
  assert.equal(coded(0xff, 0xff, 0xff, 0xf7), '\r');
});
