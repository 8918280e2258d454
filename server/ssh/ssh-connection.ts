import type { Socket } from 'node:net';
import type { AuthContext, Connection, Session } from 'ssh2';
import { asQuorateError, QuorateError } from '../../backends/contract/errors.js';
import { principalName, type Principal } from '../auth/principal.js';
import { askingCoordinator } from '../core/coordinator-lost.js';
import type { GitServiceName } from '../core/git-request.js';
import { judge, type AuthenticationStep, type SignedIn } from './authentication.js';
import { SocketPressure } from './socket-pressure.js';
import type { SshEnvironment } from './ssh-environment.js';
import { SshSession, type SessionHost } from './ssh-session.js';

/** What a connection asks of the listener. */
export interface ConnectionOwner {
  /** False when the user has as many connections as allowed. */
  enterPrincipal(name: string): boolean;
  leavePrincipal(name: string): void;
  readonly draining: boolean;
}

/** How long a peer may take to take leave after we did. */
const closeGraceMs = 5_000;

/**
 * Replies that a client lets pile up. Every channel's output is bounded on its own; this is for the small answers that
 * ssh2 gives by itself, one for each request of a client that does not read.
 */
const maxUnsentBytes = 16 * 1024 ** 2;

/** ssh2 grants a window of 2 MiB and does not insist on it. */
const maxUnreadBytes = 4 * 1024 ** 2;

/** Characters of a certificate's key id in the audit log: authorities write a name or a ticket there. */
const maxShownKeyId = 128;

/** Offered keys that the audit log names. */
const maxNamedKeys = 8;

/** One TCP connection of an SSH client: login, then sessions. */
export class SshConnection implements SessionHost {
  readonly remoteAddress: string;
  readonly pressure: SocketPressure;
  readonly #environment: SshEnvironment;
  readonly #owner: ConnectionOwner;
  readonly #socket: Socket;
  readonly #sessions = new Set<SshSession>();
  readonly #offered: string[] = [];
  readonly #startedMs: number;
  #client: Connection | undefined;
  #who: SignedIn | undefined;
  #refusal: QuorateError | undefined;
  #counted = false;
  #attempts = 0;
  /** Why the first key was refused that was refused for a reason. */
  #why: string | undefined;
  #refused = false;
  #idleSinceMs: number;
  #closingSinceMs: number | undefined;
  #closed = false;
  #bytesAtKeys = 0;

  constructor(environment: SshEnvironment, owner: ConnectionOwner, socket: Socket) {
    this.#environment = environment;
    this.#owner = owner;
    this.#socket = socket;
    this.remoteAddress = socket.remoteAddress ?? '';
    this.pressure = new SocketPressure(socket);
    this.#startedMs = environment.clock.monotonicMs();
    this.#idleSinceMs = this.#startedMs;
    socket.on('error', () => undefined);
    socket.on('data', () => this.#checkFlood());
    // On `end` ssh2 can send nothing more, although the socket may stay open for a while.
    socket.once('end', () => this.#disconnected());
    socket.once('close', () => this.#disconnected());
  }

  /** ssh2 has read the client's greeting. */
  attach(client: Connection): void {
    this.#client = client;
    client.on('error', (error: Error) => {
      const fields = { component: 'ssh', remote_address: this.remoteAddress, error: error.message };
      this.#environment.logger.debug(fields, 'SSH connection failed');
      // Keepalives went unanswered: there is nobody to say goodbye to.
      if ('level' in error && error.level === 'client-timeout') this.abandon();
      this.#closingSinceMs ??= this.#environment.clock.monotonicMs();
    });
    client.on('authentication', (context) => void this.#authenticate(context));
    client.on('session', (accept, reject) => this.#openSession(accept, reject));
    client.on('rekey', () => {
      this.#bytesAtKeys = this.#transferredBytes;
      this.pressure.keysExchanged();
    });
  }

  refusal(): QuorateError | undefined {
    if (this.#owner.draining) {
      return new QuorateError('unavailable', 'the server is shutting down: try again in a moment');
    }
    return this.#refusal;
  }

  get signedIn(): Principal {
    return this.#who?.principal ?? { kind: 'anonymous' };
  }

  async currentPrincipal(service: GitServiceName): Promise<Principal> {
    const reading = service !== 'git-receive-pack';
    const principal = await askingCoordinator(service, async () => this.#who?.renew({ reading }));
    if (principal !== undefined) return principal;
    throw new QuorateError('unauthenticated', 'this key is no longer accepted');
  }

  abandon(): void {
    this.#socket.destroy();
  }

  /** Judges the time limits. */
  checkTime(nowMs: number): void {
    const { limits } = this.#environment;
    for (const session of this.#sessions) session.checkTime(nowMs);
    if (this.#closingSinceMs !== undefined) {
      if (nowMs - this.#closingSinceMs > closeGraceMs) this.abandon();
    } else if (this.#who === undefined) {
      if (nowMs - this.#startedMs > limits.loginGraceMs) this.abandon();
    } else if (this.#sessions.size === 0) {
      if (nowMs - this.#idleSinceMs > limits.idleTimeoutMs) this.end();
    } else if (this.#transferredBytes - this.#bytesAtKeys > limits.rekeyAfterBytes) {
      this.#bytesAtKeys = this.#transferredBytes;
      this.#client?.rekey();
    }
  }

  /** No new sessions; goes once nothing runs. */
  drain(): void {
    if (![...this.#sessions].some((session) => session.running)) this.end();
  }

  /** Tells what runs to stop. */
  stop(reason: QuorateError): void {
    for (const session of this.#sessions) session.stop(reason);
  }

  /** Takes leave of the client. */
  end(): void {
    this.#closingSinceMs ??= this.#environment.clock.monotonicMs();
    try {
      if (this.#client === undefined) this.abandon();
      else this.#client.end();
    } catch {
      this.abandon();
    }
  }

  get #transferredBytes(): number {
    return this.#socket.bytesRead + this.#socket.bytesWritten;
  }

  async #authenticate(context: AuthContext): Promise<void> {
    const { limits, logger } = this.#environment;
    if (++this.#attempts > limits.maxAuthenticationAttempts) {
      this.end();
      return;
    }
    try {
      const step = await this.#judge(context);
      if (this.#closed || this.#closingSinceMs !== undefined) return;
      if (step.type === 'accepted') {
        this.#admit(step.who);
        context.accept();
      } else if (step.type === 'probe' && step.known) {
        context.accept();
      } else {
        const { fingerprint } = step;
        if (fingerprint !== undefined && !this.#offered.includes(fingerprint)) {
          if (this.#offered.length < maxNamedKeys) this.#offered.push(fingerprint);
        }
        if (context.method === 'publickey') this.#why ??= step.why;
        if (step.type === 'rejected' && context.method === 'publickey')
          this.#auditRefusal(step.why);
        context.reject(['publickey']);
      }
    } catch (thrown) {
      // Not "permission denied": the key may be fine. The client sees the connection close and may try again.
      const error = asQuorateError(thrown);
      const fields = { component: 'ssh', remote_address: this.remoteAddress, code: error.code };
      logger.error({ ...fields, error: error.message }, 'authentication failed');
      this.end();
    }
  }

  async #judge(context: AuthContext): Promise<AuthenticationStep> {
    const { accounts, authorities, noAuth } = this.#environment;
    if (!noAuth) {
      return judge(context, { accounts, authorities, remoteAddress: this.remoteAddress });
    }
    const principal: Principal = { kind: 'trusted' };
    return { type: 'accepted', who: { principal, renew: async () => principal } };
  }

  #admit(who: SignedIn): void {
    const { audit, meter } = this.#environment;
    const { certificate } = who;
    const name = principalName(who.principal);
    this.#who = who;
    this.#idleSinceMs = this.#environment.clock.monotonicMs();
    this.#counted = this.#owner.enterPrincipal(name);
    if (!this.#counted) {
      this.#refusal = new QuorateError(
        'resource-exhausted',
        `${name} has too many connections open`,
      );
      audit.record({
        event: 'limit',
        outcome: 'refused',
        actor: name,
        remoteAddress: this.remoteAddress,
        transport: 'ssh',
        details: { reason: this.#refusal.message },
      });
    }
    meter.count('authentications', { transport: 'ssh', outcome: 'ok' });
    audit.record({
      event: 'authentication',
      outcome: 'ok',
      actor: name,
      remoteAddress: this.remoteAddress,
      transport: 'ssh',
      details: {
        key: who.key?.fingerprint ?? 'none',
        ...(certificate === undefined
          ? {}
          : {
              certificate: certificate.keyId.slice(0, maxShownKeyId),
              serial: String(certificate.serial),
              authority: certificate.authority.fingerprint,
            }),
      },
    });
  }

  /** Once per connection that never got in: an agent's wrong keys are no attack, and would fill the log. */
  #auditRefusal(why: string): void {
    if (this.#refused) return;
    this.#refused = true;
    const { audit, meter } = this.#environment;
    meter.count('authentications', { transport: 'ssh', outcome: 'refused' });
    audit.record({
      event: 'authentication',
      outcome: 'refused',
      actor: principalName({ kind: 'anonymous' }),
      remoteAddress: this.remoteAddress,
      transport: 'ssh',
      details: { why, keys: this.#offered },
    });
  }

  #openSession(accept: () => Session, reject: () => void): void {
    if (this.#sessions.size >= this.#environment.limits.maxChannels || this.#owner.draining) {
      reject();
      return;
    }
    const session = new SshSession(this.#environment, this, {
      session: accept(),
      onClosed: (closed) => this.#sessionClosed(closed),
    });
    this.#sessions.add(session);
  }

  #sessionClosed(session: SshSession): void {
    this.#sessions.delete(session);
    this.#idleSinceMs = this.#environment.clock.monotonicMs();
    if (this.#owner.draining && !this.#closed) this.drain();
  }

  #checkFlood(): void {
    const unread = [...this.#sessions].some((session) => session.unreadBytes > maxUnreadBytes);
    if (unread || this.#socket.writableLength > maxUnsentBytes) this.abandon();
  }

  #disconnected(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const session of this.#sessions) session.disconnect();
    if (this.#who === undefined) {
      if (this.#offered.length > 0) this.#auditRefusal(this.#why ?? 'no accepted key');
    } else if (this.#counted) {
      this.#owner.leavePrincipal(principalName(this.#who.principal));
    }
    this.#socket.destroySoon();
  }
}
