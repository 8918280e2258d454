import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { lsRefsRequest, parseReply, runLsRefsLoad } from './ls-refs.js';

test('a request is ls-refs of protocol v2, for one ref or all', () => {
  const bytes = lsRefsRequest(new URL('http://host:81/a/b.git'), 'refs/heads/x');
  const [head = '', body = ''] = bytes.toString('latin1').split('\r\n\r\n');
  assert.match(head, /^POST \/a\/b\.git\/git-upload-pack HTTP\/1\.1\r\nHost: host:81\r\n/);
  assert.match(head, new RegExp(`Content-Length: ${body.length}$`, 'm'));
  assert.equal(
    body,
    '0014command=ls-refs\n0010agent=bench\n0016object-format=sha100010009peel\n000csymrefs\n001cref-prefix refs/heads/x\n0000',
  );
});

const replies = [
  { desc: 'with a length', text: 'HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc', body: 'abc' },
  {
    desc: 'in chunks',
    text: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\n',
    body: 'ab0123456789',
  },
];
for (const { desc, text, body } of replies) {
  test(`a reply ${desc} is whole with its last byte, and leaves what follows it`, () => {
    const bytes = Buffer.from(`${text}HTTP/1.1 200`);
    for (let length = 0; length < text.length; length++) {
      assert.equal(parseReply(bytes.subarray(0, length)), undefined, `${length} bytes`);
    }
    const reply = parseReply(bytes);
    assert.equal(reply?.status, 200);
    assert.equal(reply?.body.toString(), body);
    assert.equal(reply?.length, text.length);
  });
}

test('a request for all refs has no prefix', () => {
  const bytes = lsRefsRequest(new URL('http://host:81/a/b.git'));
  assert.match(bytes.toString('latin1'), /000csymrefs\n0000$/);
});

test('replies are counted, and a wrong one fails the load', async () => {
  let answer = '0041 refs/heads/x\n0000';
  let asked = 0;
  const server = createServer((request, response) => {
    asked += 1;
    request.resume().on('end', () => response.end(answer));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  const load = {
    url: new URL(`http://127.0.0.1:${address.port}/r.git`),
    questions: [{ prefix: 'refs/heads/x', names: 'refs/heads/x' }],
    connections: 2,
    durationMs: 50,
  };
  try {
    const answered = await runLsRefsLoad(load);
    assert.ok(answered >= 2);
    assert.equal(answered, asked);
    answer = '0000';
    await assert.rejects(runLsRefsLoad(load), /ls-refs: 200 0000/);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
