import type { Socket } from 'node:net';

/**
 * Bytes that may wait in a connection's socket before its channels stop writing. Enough to keep the kernel's buffer
 * full; what 10,000 slow readers can hold is bounded by it.
 */
const maxBufferedBytes = 512 * 1024;

/**
 * Back-pressure of one connection. SSH's windows alone bound nothing, since it is the client who chooses them: a client
 * that announces 4 GiB and then does not read would leave 4 GiB in ssh2's hands. ssh2 ignores the socket's own
 * back-pressure, and while keys are exchanged it queues without bound; here both are waited for.
 */
export class SocketPressure {
  readonly #socket: Socket;
  readonly #waitingForDrain = new Set<() => void>();
  readonly #waitingForKeys = new Set<() => void>();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('drain', () => this.#release(this.#waitingForDrain));
    socket.once('close', () => {
      this.#waitingForDrain.clear();
      this.#waitingForKeys.clear();
    });
  }

  /** Bytes given to the socket so far; to be read before a write and handed to `settled` after it. */
  mark(): number {
    return this.#socket.bytesWritten;
  }

  /** Calls `done` once `sizeBytes` written since `mark` need not be held back. Never, when the connection closes. */
  settled(mark: number, sizeBytes: number, done: () => void): void {
    // What was encrypted is larger than what was written. If it is not, ssh2 keeps it until the key exchange is over.
    if (this.#socket.bytesWritten - mark < sizeBytes) {
      this.#waitingForKeys.add(() => this.#whenDrained(done));
    } else {
      this.#whenDrained(done);
    }
  }

  /** ssh2 has new keys and has sent what it had queued. */
  keysExchanged(): void {
    this.#release(this.#waitingForKeys);
  }

  #whenDrained(done: () => void): void {
    if (this.#socket.writableLength <= maxBufferedBytes) done();
    else this.#waitingForDrain.add(done);
  }

  #release(waiting: Set<() => void>): void {
    const released = [...waiting];
    waiting.clear();
    for (const done of released) done();
  }
}
