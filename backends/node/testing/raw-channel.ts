import { createServer, type IncomingMessage, type Server } from 'node:http';
import { once } from 'node:events';
import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import type { Logger } from '../../contract/environment.js';
import {
  type ChannelKeys,
  channelKeys,
  channelProtocol,
  type Message,
  MessageReader,
  MessageWriter,
} from '../channel-wire.js';
import { wholeFrame } from '../frames.js';
import { encodeMessage } from '../messages.js';
import { type NodeAddress, NodeRequests } from '../node-requests.js';
import { answerProof } from '../request-signature.js';
import { secret } from './node-scene.js';

/** A logger that counts lines above `info`, and what they say. */
export function listeningLogger(): { readonly logger: Logger; readonly warnings: string[] } {
  const warnings: string[] = [];
  const note = (_fields: object, message: string): void => void warnings.push(message);
  const logger: Logger = {
    debug: () => undefined,
    info: () => undefined,
    warn: note,
    error: note,
    child: () => logger,
  };
  return { logger, warnings };
}

/** A caller's end of a channel, whose owner may write what he likes. */
export interface RawCaller {
  readonly socket: Socket;
  readonly writer: MessageWriter;
  readonly keys: ChannelKeys | undefined;
  isClosed(): boolean;
}

/** Opens a channel to a node as a member that has the secret. */
export async function openRawChannel(address: NodeAddress, storeId: string): Promise<RawCaller> {
  const requests = new NodeRequests({
    address,
    storeId,
    credentials: secret,
    client: 'cd'.repeat(16),
    silenceMs: 60_000,
    maxConnections: 1,
    maxIdleConnections: 1,
  });
  const opened = await requests.openChannel(new AbortController().signal);
  requests.destroy();
  assert.ok(opened !== undefined, 'the node has channels');
  const { socket, mac } = opened;
  const keys = channelKeys(secret.secret, mac);
  let closed = false;
  socket.on('error', () => undefined).on('close', () => (closed = true));
  socket.resume();
  return { socket, writer: new MessageWriter(keys?.toNode), keys, isClosed: () => closed };
}

/** What a node of a test does with the messages of a channel, after the first sign of life. */
export type Misbehaviour = (message: Message, node: RawNode) => void;

export interface RawNode {
  readonly socket: Socket;
  readonly writer: MessageWriter;
}

/** A node that answers requests as one should (`applied`: 7), and calls of its channels as the test says. */
export async function startRawNode(
  storeId: string,
  misbehave: Misbehaviour,
): Promise<{ readonly address: NodeAddress; readonly requests: string[]; close(): Promise<void> }> {
  const requests: string[] = [];
  const sockets = new Set<Socket>();
  const attended = encodeMessage({ storeId, draining: false });
  const server: Server = createServer((request, response) => {
    const path = request.url ?? '';
    requests.push(path.slice(path.lastIndexOf('/') + 1));
    request.resume();
    const result = path.endsWith('/attend') ? attended : encodeMessage({ generation: 7 });
    response.setHeader('Quorate-Proof', proofFor(request));
    response.end(wholeFrame('end', result));
  });
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.on('upgrade', (request: IncomingMessage, socket) => {
    assert.ok(socket instanceof Socket);
    const mac = macOf(request);
    const keys = channelKeys(secret.secret, mac);
    const writer = new MessageWriter(keys?.toCaller);
    const reader = new MessageReader(keys?.toNode, (message) => {
      const target = message.frames[0]?.payload.toString();
      if (target === 'attend') socket.write(writer.message(message.number, [['end', attended]]));
      else misbehave(message, { socket, writer });
    });
    socket.on('error', () => undefined).on('data', (bytes) => reader.read(bytes));
    const head = ['Connection: Upgrade', `Upgrade: ${channelProtocol}`];
    head.push(`Quorate-Proof: ${proofFor(request)}`);
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${head.join('\r\n')}\r\n\r\n`);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === 'object');
  return {
    address: { host: '127.0.0.1', port: bound.port },
    requests,
    close: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}

function macOf(request: IncomingMessage): string {
  return request.headers.authorization?.split(' ').at(-1) ?? '';
}

function proofFor(request: IncomingMessage): string {
  return answerProof(secret.secret, macOf(request));
}
