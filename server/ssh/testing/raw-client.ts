import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import ssh2 from 'ssh2';
import type { SshScene } from './ssh-scene.js';

/** A client that breaks the rules: one session channel, with any window and packet size, and messages at will. */
export interface RawClient {
  readonly socket: Socket;
  exec(command: string): void;
  /** Channel data without regard to the server's window. */
  data(bytes: Buffer): void;
  eof(): void;
  /** Begins a key exchange. */
  rekey(): void;
}

type Message = (...values: readonly unknown[]) => unknown;

/** Logs in with `keyFile` and opens a session channel that announces what `options` say. */
export async function connectRaw(
  scene: SshScene,
  keyFile: string,
  options: { readonly window: number; readonly packetBytes: number },
): Promise<RawClient> {
  const socket = connect(scene.port, '127.0.0.1');
  socket.on('error', () => undefined);
  const client = new ssh2.Client();
  client.on('error', () => undefined);
  await new Promise<void>((resolve, reject) => {
    client.once('ready', resolve).once('error', reject);
    client.connect({ sock: socket, username: 'git', privateKey: readFileSync(keyFile) });
  });
  // The numbers are ours to choose only below ssh2's interface.
  const protocol: unknown = Reflect.get(client, '_protocol');
  assert.ok(typeof protocol === 'object' && protocol !== null);
  const message = (name: string): Message => {
    const method: unknown = Reflect.get(protocol, name);
    assert.ok(typeof method === 'function');
    return (...values) => Reflect.apply(method, protocol, values);
  };
  // The server numbers channels from 0, and so do we; ssh2's client ignores answers for channels it does not know.
  message('session')(0, options.window, options.packetBytes);
  return {
    socket,
    exec: (command) => void message('exec')(0, command, true),
    data: (bytes) => void message('channelData')(0, bytes),
    eof: () => void message('channelEOF')(0),
    rekey: () => void message('rekey')(),
  };
}
