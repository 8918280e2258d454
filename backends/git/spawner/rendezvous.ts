import { randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { tokenBytes } from './messages.js';

/** A helper connects at once; what does not tell its token by then is somebody else. */
const tokenTimeoutMs = 10_000;

/** Where children's streams arrive: a socket in a directory that only this user can enter, and a token for each. */
export class Rendezvous {
  readonly #server: Server;
  readonly #expected = new Map<string, (socket: Socket) => void>();
  readonly #unnamed = new Set<Socket>();

  private constructor() {
    // Paused on arrival: what follows the token belongs to whoever is given the socket.
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#welcome(socket));
  }

  static async listen(path: string): Promise<Rendezvous> {
    const rendezvous = new Rendezvous();
    await new Promise<void>((resolve, reject) => {
      rendezvous.#server.once('error', reject);
      rendezvous.#server.listen({ path, backlog: 1024 }, resolve);
    });
    // A connection that cannot be accepted, for want of files or memory: who waits for it finds that it does not come.
    rendezvous.#server.on('error', () => {});
    return rendezvous;
  }

  /** A token, and the connection that will tell it. `forget` drops the expectation, or the connection that came. */
  expect(): { token: string; socket: Promise<Socket>; forget: () => void } {
    const token = randomBytes(tokenBytes).toString('hex');
    let forgotten = false;
    let arrived: Socket | undefined;
    const socket = new Promise<Socket>((resolve) => {
      this.#expected.set(token, (connection) => {
        arrived = connection;
        if (forgotten) connection.destroy();
        else resolve(connection);
      });
    });
    const forget = (): void => {
      forgotten = true;
      this.#expected.delete(token);
      arrived?.destroy();
    };
    return { token, socket, forget };
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#unnamed) socket.destroy();
  }

  #welcome(socket: Socket): void {
    this.#unnamed.add(socket);
    const timer = setTimeout(() => socket.destroy(), tokenTimeoutMs);
    // The stream's later owner listens for itself; a reset connection must never be an uncaught error.
    socket.on('error', () => {});
    const onReadable = (): void => {
      const token: unknown = socket.read(tokenBytes);
      if (!Buffer.isBuffer(token)) return;
      settled();
      const key = token.toString('hex');
      const deliver = this.#expected.get(key);
      this.#expected.delete(key);
      if (deliver === undefined) socket.destroy();
      else deliver(socket);
    };
    const settled = (): void => {
      clearTimeout(timer);
      this.#unnamed.delete(socket);
      socket.off('readable', onReadable);
      socket.off('close', settled);
    };
    socket.on('readable', onReadable);
    socket.on('close', settled);
  }
}
