import assert from 'node:assert/strict';
import { connect, createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import type { NodeAddress } from '../node-requests.js';

/** A wire between a client and a node that the test can hold, cut, and count. */
export interface StallableProxy {
  readonly address: NodeAddress;
  /** Bytes from the node to clients, and from clients to the node, so far. */
  readonly toClientBytes: number;
  readonly toNodeBytes: number;
  /** Connections so far, and those that there are now. */
  readonly connections: number;
  readonly open: number;
  /** What clients said so far. */
  heard(): Buffer;
  /** Nothing passes, and nobody is told: as with a paused process, or a network that lost its packets. */
  stall(): void;
  resume(): void;
  /** Breaks the connections that there are. */
  cut(): void;
  close(): Promise<void>;
}

export async function startProxy(target: NodeAddress): Promise<StallableProxy> {
  const sockets = new Set<Socket>();
  const said: Buffer[] = [];
  let stalled = false;
  let connections = 0;
  let [toClientBytes, toNodeBytes] = [0, 0];
  const add = (socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    if (stalled) socket.pause();
  };
  const server = createServer((near) => {
    connections += 1;
    const far = connect(target);
    add(near);
    add(far);
    near.on('data', (bytes) => {
      toNodeBytes += bytes.length;
      said.push(bytes);
      far.write(bytes);
    });
    far.on('data', (bytes) => {
      toClientBytes += bytes.length;
      near.write(bytes);
    });
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroy());
    if (stalled) [near, far].map((socket) => socket.pause());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === 'object');
  return {
    address: { host: '127.0.0.1', port: bound.port },
    get toClientBytes() {
      return toClientBytes;
    },
    get toNodeBytes() {
      return toNodeBytes;
    },
    get connections() {
      return connections;
    },
    get open() {
      return sockets.size / 2;
    },
    heard: () => Buffer.concat(said),
    stall: () => {
      stalled = true;
      for (const socket of sockets) socket.pause();
    },
    resume: () => {
      stalled = false;
      for (const socket of sockets) socket.resume();
    },
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
