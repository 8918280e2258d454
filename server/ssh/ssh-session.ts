import { finished } from 'node:stream/promises';
import type { ServerChannel, Session } from 'ssh2';
import { asQuorateError, QuorateError } from '../../backends/contract/errors.js';
import { withinPushVariable } from '../../backends/contract/within-push.js';
import { principalName, type Principal } from '../auth/principal.js';
import type { GitOutcome, GitServiceName } from '../core/git-request.js';
import { parseGitProtocol } from '../wire/git-protocol.js';
import { parseSshCommand, type SshGitCommand } from '../wire/ssh-command.js';
import { WireError } from '../wire/wire-error.js';
import { ChannelInput, ChannelOutput } from './channel-streams.js';
import { failureLine, failureOfCode } from './error-map.js';
import type { SocketPressure } from './socket-pressure.js';
import type { SshEnvironment } from './ssh-environment.js';

/** What a session needs to know of its connection. */
export interface SessionHost {
  readonly remoteAddress: string;
  readonly pressure: SocketPressure;
  /** Who signed in. */
  readonly signedIn: Principal;
  /** Who holds the connection's key now. Throws `unauthenticated` once the key or its user is no longer accepted. */
  currentPrincipal(service: GitServiceName): Promise<Principal>;
  /** Why this connection may not start anything, if it may not. */
  refusal(): QuorateError | undefined;
  /** No reply can be sent any more that would be right: the connection is torn down. */
  abandon(): void;
}

/** ssh2 passes packet sizes of 0 on and then loops for ever; less than this is nobody's packet size. */
const minPacketBytes = 256;

/** How long an exchange that was told to stop has before its connection is torn down. */
const stopGraceMs = 2_000;

/**
 * One channel of type `session` (RFC 4254 section 6): a git command, or a login that is greeted. Its end is announced
 * through `onClosed`, once.
 */
export class SshSession {
  readonly #environment: SshEnvironment;
  readonly #host: SessionHost;
  readonly #onClosed: (session: SshSession) => void;
  readonly #stopping = new AbortController();
  #gitProtocol: string | undefined;
  #withinPush: string | undefined;
  #hasTerminal = false;
  #channel: ServerChannel | undefined;
  #input: ChannelInput | undefined;
  #output: ChannelOutput | undefined;
  #running = false;
  /** Waits for other requests, not for the client. */
  #held = false;
  #closed = false;
  #startedMs: number;
  #progressMs: number;
  #stoppedMs: number | undefined;

  constructor(
    environment: SshEnvironment,
    host: SessionHost,
    options: {
      readonly session: Session;
      readonly onClosed: (session: SshSession) => void;
    },
  ) {
    this.#environment = environment;
    this.#host = host;
    this.#onClosed = options.onClosed;
    this.#startedMs = environment.clock.monotonicMs();
    this.#progressMs = this.#startedMs;
    this.#listen(options.session);
  }

  /** A command runs: its bytes may still come. */
  get running(): boolean {
    return this.#running;
  }

  /** Bytes that ssh2 holds because nobody reads them. */
  get unreadBytes(): number {
    return this.#channel?.readableLength ?? 0;
  }

  /** Ends the exchange in an orderly way if it can be: it gets the reason and may still tell the client. */
  stop(reason: QuorateError): void {
    this.#stoppedMs ??= this.#environment.clock.monotonicMs();
    this.#stopping.abort(reason);
  }

  /** The client is gone. */
  disconnect(): void {
    if (this.#closed) return;
    this.#closed = true;
    const reason = new QuorateError('cancelled', 'the client disconnected');
    this.#stopping.abort(reason);
    this.#input?.destroy(reason);
    this.#output?.destroy(reason);
    this.#onClosed(this);
  }

  /** Judges the time limits; called every second or so. */
  checkTime(nowMs: number): void {
    const { limits } = this.#environment;
    const clientIsDue =
      this.#input?.starved === true || this.#output?.blocked === true || !this.#running;
    const waits = clientIsDue && !this.#held;
    if (this.#stoppedMs !== undefined) {
      if (nowMs - this.#stoppedMs > stopGraceMs) this.#host.abandon();
    } else if (waits && nowMs - this.#progressMs > limits.idleTimeoutMs) {
      this.stop(new QuorateError('deadline-exceeded', 'nothing came or went for too long'));
    } else if (nowMs - this.#startedMs > limits.requestTimeoutMs) {
      this.stop(new QuorateError('deadline-exceeded', 'the request took too long'));
    }
  }

  #listen(session: Session): void {
    session.on('env', (accept, reject, { key, val }) => {
      if (key === 'GIT_PROTOCOL') this.#gitProtocol = val;
      else if (key === withinPushVariable) this.#withinPush = val;
      else {
        reject?.();
        return;
      }
      accept?.();
    });
    session.on('pty', (accept) => {
      this.#hasTerminal = true;
      accept?.();
    });
    // The channel has to be accepted before these return: after a client's early EOF ssh2 no longer does.
    session.on('shell', (accept) => this.#start(accept(), () => this.#greet()));
    session.on('exec', (accept, _reject, { command }) => {
      this.#start(accept(), () => this.#serve(command));
    });
    session.once('close', () => this.disconnect());
    session.on('error', () => undefined);
  }

  #start(channel: ServerChannel | undefined, serve: () => Promise<void>): void {
    // ssh2 gives no channel when the session has one already or has ended.
    if (channel === undefined || this.#channel !== undefined) return;
    this.#channel = channel;
    channel.on('error', () => this.disconnect());
    channel.stderr.on('error', () => undefined);
    if (packetBytesOf(channel) < minPacketBytes) {
      this.#host.abandon();
      return;
    }
    const progress = (): void => {
      this.#progressMs = this.#environment.clock.monotonicMs();
    };
    progress();
    this.#input = new ChannelInput(channel, progress);
    this.#output = new ChannelOutput(channel, this.#host.pressure, progress);
    this.#running = true;
    void serve().finally(() => {
      this.#running = false;
      progress();
    });
  }

  async #greet(): Promise<void> {
    try {
      const principal = await this.#admit('git-upload-pack');
      const newLine = this.#hasTerminal ? '\r\n' : '\n';
      const text = `Hi ${principalName(principal)}! You have successfully authenticated, but Quorate does not provide shell access.${newLine}`;
      this.#output?.write(text);
      await this.#finish(0);
    } catch (error) {
      this.#fail(asQuorateError(error), this.#newRequestId());
    }
  }

  async #serve(commandLine: string): Promise<void> {
    const { logger, clock, meter } = this.#environment;
    const requestId = this.#newRequestId();
    const startedMs = clock.monotonicMs();
    let command: SshGitCommand | undefined;
    let principal = this.#host.signedIn;
    const facts: Record<string, unknown> = {};
    let outcome: GitOutcome['status'];
    try {
      command = parseCommand(commandLine);
      principal = await this.#admit(command.service);
      const result = await this.#exchange(command, { principal, requestId, facts });
      Object.assign(facts, result.fields, { exit_code: result.exitCode });
      outcome = result.status;
      await this.#finish(result.exitCode);
    } catch (thrown) {
      const error = asQuorateError(thrown);
      outcome = failureOfCode[error.code].outcome;
      Object.assign(facts, { error: error.code, reason: error.message, ...causeOf(error) });
      this.#fail(error, requestId);
    }
    const service = command?.service ?? 'none';
    const durationMs = clock.monotonicMs() - startedMs;
    const labels = { transport: 'ssh', service };
    const bytesIn = this.#input?.receivedBytes ?? 0;
    const bytesOut = this.#output?.sentBytes ?? 0;
    meter.count('requests', { ...labels, outcome });
    meter.observe('request_seconds', durationMs / 1000, labels);
    if (bytesIn > 0) meter.count('request_bytes', { ...labels, direction: 'in' }, bytesIn);
    if (bytesOut > 0) meter.count('request_bytes', { ...labels, direction: 'out' }, bytesOut);
    const fields = {
      component: 'ssh',
      request_id: requestId,
      principal: principalName(principal),
      remote_address: this.#host.remoteAddress,
      path: command?.path.slice(0, 256),
      service,
      outcome,
      bytes_in: bytesIn,
      bytes_out: bytesOut,
      duration_ms: Math.round(durationMs),
      ...facts,
    };
    if (facts['error'] === 'internal') logger.error(fields, 'request failed');
    else logger.info(fields, 'request');
  }

  async #exchange(
    command: SshGitCommand,
    {
      principal,
      requestId,
      facts,
    }: {
      readonly principal: Principal;
      readonly requestId: string;
      /** Of the line in the log. */
      readonly facts: Record<string, unknown>;
    },
  ): Promise<GitOutcome> {
    const input = this.#input;
    const output = this.#output;
    if (input === undefined || output === undefined) throw new Error('a session without a channel');
    const exchange = await this.#environment.service.open({
      requestId,
      service: command.service,
      path: command.path,
      principal,
      transport: 'ssh',
      remoteAddress: this.#host.remoteAddress,
      protocol: parseGitProtocol(this.#gitProtocol),
      mode: 'session',
      withinPush: this.#withinPush,
      signal: this.#stopping.signal,
      // Nothing was written to the other output yet.
      onRecalled: (lostForMs) => {
        this.#attempt((channel) => channel.stderr.write(recalledLine(lostForMs)));
      },
      onHold: (held) => {
        this.#held = held;
        this.#progressMs = this.#environment.clock.monotonicMs();
      },
    });
    facts['repo'] = exchange.repositoryId;
    return exchange.run(input, output);
  }

  async #admit(service: GitServiceName): Promise<Principal> {
    const refusal = this.#host.refusal();
    if (refusal !== undefined) throw refusal;
    return this.#host.currentPrincipal(service);
  }

  /** Everything out, then the exit status, then EOF and close, as RFC 4254 section 6.10 has them. */
  async #finish(exitCode: number): Promise<void> {
    const output = this.#output;
    if (output === undefined || this.#closed) return;
    if (!output.destroyed) {
      output.end();
      // Rejects when the client left meanwhile; then nobody waits for a status.
      await finished(output, { readable: false }).catch(() => undefined);
    }
    this.#close(exitCode);
  }

  /**
   * An error that came before the first byte of output, or instead of its rest. ssh2 loses track of windows when both
   * outputs of a channel wait for one, so stderr is used only while nothing was written to the other.
   */
  #fail(error: QuorateError, requestId: string): void {
    if (this.#closed) return;
    const silent = this.#output?.sentBytes === 0 && !this.#output.blocked;
    const { exitCode } = failureOfCode[error.code];
    if (silent && exitCode !== undefined) {
      this.#attempt((channel) => channel.stderr.write(failureLine(error, requestId)));
    }
    this.#close(exitCode);
  }

  #close(exitCode: number | undefined): void {
    this.#input?.destroy();
    this.#output?.destroy();
    this.#attempt((channel) => {
      if (exitCode !== undefined) channel.exit(exitCode);
      channel.end();
    });
  }

  /** ssh2 throws when the connection has gone in the meantime. */
  #attempt(send: (channel: ServerChannel) => void): void {
    if (this.#closed || this.#channel === undefined) return;
    try {
      send(this.#channel);
    } catch {
      this.#host.abandon();
    }
  }

  #newRequestId(): string {
    return Buffer.from(this.#environment.random.bytes(8)).toString('hex');
  }
}

function recalledLine(lostForMs: number): string {
  const seconds = Math.ceil(lostForMs / 1000);
  return `WARNING: the coordinator has not answered for ${seconds} s: this may not be the newest state\n`;
}

function parseCommand(line: string): SshGitCommand {
  try {
    return parseSshCommand(line);
  } catch (error) {
    if (error instanceof WireError) throw new QuorateError('invalid-argument', error.message);
    throw error;
  }
}

function causeOf(error: QuorateError): { cause?: string } {
  return error.code === 'internal' && error.cause instanceof Error
    ? { cause: error.cause.stack ?? error.cause.message }
    : {};
}

/** ssh2 does not declare it. An unknown shape counts as unusable. */
function packetBytesOf(channel: ServerChannel): number {
  const outgoing: unknown = Reflect.get(channel, 'outgoing');
  if (typeof outgoing !== 'object' || outgoing === null) return 0;
  const size: unknown = Reflect.get(outgoing, 'packetSize');
  return typeof size === 'number' ? size : 0;
}
