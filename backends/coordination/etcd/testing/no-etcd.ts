import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** What listens on an address of its own, and is no etcd. */
export async function startNoEtcd(): Promise<{
  readonly endpoint: string;
  readonly stop: () => void;
}> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end('SSH-2.0-other\r\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return { endpoint: `127.0.0.1:${address.port}`, stop: () => server.close() };
}
