import { ClientClosedError } from 'etcd3/lib/errors.js';
import { failure, statusCode } from './grpc-status.js';
import type { MemberPlace } from './member-socket.js';
import { type UnaryCall, UnaryConnection } from './unary-connection.js';

/** A member that was started again is found soon, and one that is down is not asked all the time. */
const firstPauseMs = 50;
const longestPauseMs = 500;

/** Calls to one member of etcd, over one connection at a time, which is made when it is needed. */
export class UnaryChannel {
  readonly #place: MemberPlace;
  #connection: UnaryConnection | undefined;
  /** When a connection may be tried again. */
  #nextMs = 0;
  #pauseMs = firstPauseMs;
  #closed = false;

  constructor(place: MemberPlace) {
    this.#place = place;
  }

  /** Whether there is a connection, within `timeoutMs` if one has to be made. */
  async ready(timeoutMs: number): Promise<boolean> {
    if (this.#closed) throw new ClientClosedError('KV');
    const connection = this.#connection ?? this.#connect();
    if (connection === undefined) return false;
    return connection.usable || orLate(connection.opened, timeoutMs);
  }

  /** Fails as etcd3 does, or with `RequestNotTaken`. */
  async call(call: UnaryCall): Promise<Buffer> {
    if (this.#closed) throw new ClientClosedError('KV');
    const connection = this.#connection ?? this.#connect();
    const opened = connection?.usable === true || (await connection?.opened) === true;
    if (connection?.usable === true && opened) return connection.call(call);
    throw failure(statusCode.unavailable, 'no connection');
  }

  /** Calls that were made are answered. */
  close(): void {
    this.#closed = true;
    this.#connection?.leave();
  }

  #connect(): UnaryConnection | undefined {
    if (performance.now() < this.#nextMs) return undefined;
    const connection = new UnaryConnection({
      ...this.#place,
      onLeaving: () => {
        if (this.#connection === connection) this.#connection = undefined;
      },
    });
    this.#connection = connection;
    void this.#pauseUnlessOpened(connection);
    return connection;
  }

  async #pauseUnlessOpened(connection: UnaryConnection): Promise<void> {
    if (await connection.opened) {
      this.#pauseMs = firstPauseMs;
      return;
    }
    this.#nextMs = performance.now() + this.#pauseMs;
    this.#pauseMs = Math.min(2 * this.#pauseMs, longestPauseMs);
  }
}

async function orLate(opened: Promise<boolean>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  try {
    return await Promise.race([opened, late]);
  } finally {
    clearTimeout(timer);
  }
}
