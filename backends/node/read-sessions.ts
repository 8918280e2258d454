import type { Clock } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { ReplicaRead } from '../contract/replica.js';

/** Reads that one client may hold open: each is one request of a user. */
const maxSessionsPerClient = 10_000;

interface Session {
  /** Undefined until it is open. */
  read: ReplicaRead | undefined;
  /** Calls that run on it. */
  uses: number;
  released: boolean;
}

interface Client {
  lastSeenMs: number;
  readonly sessions: Map<string, Session>;
}

/**
 * The reads that front-ends hold open here. A session lives as long as its client says now and then that it does, so
 * that what a dead front-end pinned is let go; what runs on a session keeps it.
 */
export class ReadSessions {
  readonly #clock: Clock;
  readonly #leaseMs: number;
  readonly #clients = new Map<string, Client>();

  constructor(clock: Clock, leaseMs: number) {
    this.#clock = clock;
    this.#leaseMs = leaseMs;
  }

  get count(): number {
    let count = 0;
    for (const { sessions } of this.#clients.values()) count += sessions.size;
    return count;
  }

  /** The client lives. */
  seen(client: string): void {
    const known = this.#clients.get(client);
    if (known === undefined) return;
    known.lastSeenMs = this.#clock.monotonicMs();
  }

  /**
   * Opens a session under an id that the client chose, so that it can give back one whose answer it never got. It takes
   * the place of one of the same id.
   */
  async open(
    client: string,
    id: string,
    read: () => Promise<ReplicaRead>,
  ): Promise<{ readonly read: ReplicaRead; readonly done: () => void }> {
    const nowMs = this.#clock.monotonicMs();
    const owner = this.#clients.get(client) ?? { lastSeenMs: nowMs, sessions: new Map() };
    owner.lastSeenMs = nowMs;
    if (owner.sessions.size >= maxSessionsPerClient) {
      throw new QuorateError('resource-exhausted', 'too many reads are open on the storage node');
    }
    // The call is made again, since its answer was lost or too long: what was opened for it is nobody's.
    const before = owner.sessions.get(id);
    if (before !== undefined) {
      before.released = true;
      this.#settle(client, id, before);
    }
    const session: Session = { read: undefined, uses: 1, released: false };
    this.#clients.set(client, owner);
    owner.sessions.set(id, session);
    const done = this.#onceDone(client, id, session);
    try {
      session.read = await read();
      return { read: session.read, done };
    } catch (error) {
      session.released = true;
      done();
      throw error;
    }
  }

  /** The read of a session, held until `done`. `unavailable` when there is none: another replica may serve. */
  use(client: string, id: string): { readonly read: ReplicaRead; readonly done: () => void } {
    const session = this.#clients.get(client)?.sessions.get(id);
    if (session?.read === undefined || session.released) {
      throw new QuorateError('unavailable', 'the storage node has ended the read session');
    }
    session.uses += 1;
    return { read: session.read, done: this.#onceDone(client, id, session) };
  }

  release(client: string, ids: readonly string[]): void {
    for (const id of ids) {
      const session = this.#clients.get(client)?.sessions.get(id);
      if (session === undefined) continue;
      session.released = true;
      this.#settle(client, id, session);
    }
  }

  /** Lets go of what silent clients held. To be called every second or so. */
  expire(): void {
    const oldestMs = this.#clock.monotonicMs() - this.#leaseMs;
    for (const [client, { lastSeenMs, sessions }] of this.#clients) {
      if (lastSeenMs >= oldestMs) continue;
      this.release(client, [...sessions.keys()]);
    }
  }

  /** Ends all of them. */
  close(): void {
    for (const [client, { sessions }] of this.#clients) this.release(client, [...sessions.keys()]);
  }

  #onceDone(client: string, id: string, session: Session): () => void {
    let over = false;
    return () => {
      if (over) return;
      over = true;
      session.uses -= 1;
      this.#settle(client, id, session);
    };
  }

  #settle(client: string, id: string, session: Session): void {
    if (!session.released || session.uses > 0) return;
    session.read?.release();
    session.read = undefined;
    const owner = this.#clients.get(client);
    if (owner?.sessions.get(id) !== session) return;
    owner.sessions.delete(id);
    if (owner.sessions.size === 0) this.#clients.delete(client);
  }
}
