import type { Clock, Logger, Random } from '../contract/environment.js';
import { ClockDifference } from './clock-difference.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { Deferred } from '../git/spawner/deferred.js';
import { channelKeys } from './channel-wire.js';
import type { ClientCall } from './client-call.js';
import { ClientChannel, NotAnswered } from './client-channel.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import {
  type Arguments,
  attendResult,
  type CallName,
  decodeMessage,
  duplexCalls,
  encodeMessage,
  isSmallCallName,
} from './messages.js';
import { misfitWords } from './misfit.js';
import { gaveUp, type NodeAddress, NodeRequests } from './node-requests.js';

export interface NodeClientLimits {
  /** How long a node may say nothing while it works for us, before it counts as gone. */
  readonly silenceMs: number;
  /** Pause between two signs of life to a node, and between two attempts to reach one that is gone. */
  readonly attendMs: number;
  readonly retryMs: number;
  /** Connections to one node. */
  readonly maxConnections: number;
  readonly maxIdleConnections: number;
}

export const defaultNodeClientLimits: NodeClientLimits = {
  // Five beats. Writes are to go on within three seconds after a node stopped.
  silenceMs: 2_500,
  attendMs: 1_000,
  retryMs: 250,
  // Clones through one front-end from one node; each has a git there.
  maxConnections: 1_024,
  maxIdleConnections: 64,
};

export interface NodeClientOptions {
  readonly address: NodeAddress;
  /** The store that is to be there. */
  readonly storeId: string;
  readonly credentials: ClusterCredentials;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly limits?: Partial<NodeClientLimits>;
  /** Told when the node becomes reachable, or stops being so. */
  readonly onChange?: () => void;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Data that is known whole: it goes out with the arguments, and the caller has nothing to add. */
  readonly data?: Uint8Array | undefined;
  /** The call is given up then, as by its signal. */
  readonly timeoutMs?: number | undefined;
}

interface ResultOptions extends CallOptions {
  readonly onFrame?: (payload: Buffer) => void;
  /** The answer will be too long for a channel. */
  readonly long?: boolean;
}

/** Longer than a small repository's whole repack; without a signal, a call has to end some time. */
const callTimeoutMs = 15 * 60_000;

/** Connections to one storage node, and what is known of whether it answers. */
export class NodeClient {
  readonly storeId: string;
  readonly address: NodeAddress;
  readonly #options: NodeClientOptions;
  readonly #limits: NodeClientLimits;
  readonly #requests: NodeRequests;
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;
  /** Cuts the pause between two signs of life short. */
  #nudge = new AbortController();
  /** For small calls. Opened before a sign of life, which then goes over it. */
  #channel: ClientChannel | undefined;
  /** The certificates that it was opened with. */
  #channelTls: unknown;
  /** The node has none to give. */
  #channelLess = false;
  #onChannel = 0;
  #reachable = false;
  /** At least once. */
  #answered = false;
  #refused = false;
  /** Why it does not answer, when credentials that do not fit are the reason. */
  #misfit: string | undefined;
  /** Why it does not answer was said, and nothing has changed since. */
  #complained = false;
  #draining = false;
  #problem: string | undefined;
  readonly #clock: ClockDifference;
  /** Read sessions given back, of which the node does not know yet. */
  #released: string[] = [];
  #releasing: NodeJS.Timeout | undefined;

  constructor(options: NodeClientOptions) {
    this.#options = options;
    this.storeId = options.storeId;
    this.address = options.address;
    this.#limits = { ...defaultNodeClientLimits, ...options.limits };
    this.#requests = new NodeRequests({ ...options, ...this.#limits, client: this.newId() });
    const { host, port } = this.address;
    const facts = { component: 'node-client', store: this.storeId, node: `${host}:${port}` };
    this.#clock = new ClockDifference({ ...options, facts });
    const asked = new Deferred<void>();
    this.asked = asked.promise;
    this.#loop = this.#attendForEver(() => asked.resolve());
  }

  /** Resolves when the node was asked for the first time, whether it answered or not. */
  readonly asked: Promise<void>;

  /** Answered the last sign of life. */
  get reachable(): boolean {
    return this.#reachable;
  }

  /** It does not take this process for a member of its cluster. */
  get refused(): boolean {
    return this.#refused;
  }

  /** What does not fit in its credentials or ours, when that is why it does not answer; with the remedy. */
  get misfit(): string | undefined {
    return this.#misfit;
  }

  /** The node takes no new work. */
  get draining(): boolean {
    return this.#draining;
  }

  /** What the node said last is wrong with its disk, and the remedy. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** See `ClockDifference`. */
  get clockApartMs(): number | undefined {
    return this.#clock.apartMs;
  }

  /** Calls that run there from here. */
  get running(): number {
    return this.#requests.running + this.#onChannel;
  }

  newId(): string {
    return Buffer.from(this.#options.random.bytes(16)).toString('hex');
  }

  /** Gives a read session back, sooner or later. */
  release(session: string): void {
    if (this.#closing.signal.aborted) return;
    this.#released.push(session);
    this.#releasing ??= setTimeout(() => {
      this.#releasing = undefined;
      this.#nudge.abort();
    }, releaseDelayMs).unref();
  }

  /**
   * Begins a call; resolves with the head of the answer. A connection that broke before it is tried once more, on
   * another connection: nothing has happened by then, or what has is idempotent.
   */
  async call<Name extends CallName>(
    repositoryId: string,
    name: Name,
    args: Arguments<Name>,
    { signal, data, timeoutMs }: CallOptions = {},
  ): Promise<ClientCall> {
    this.#check(signal);
    const path = `/v1/${this.storeId}/${repositoryId}/${name}`;
    const duplex = data === undefined && duplexCalls.has(name);
    const payload = encodeMessage(args);
    try {
      return await this.#requests.begin({ path, payload, data, signal, timeoutMs, duplex });
    } catch (error) {
      throw this.#told(error);
    }
  }

  /** A call whose answer is its result. Frames before the last go to `onFrame`. */
  async result<Name extends CallName>(
    repositoryId: string,
    name: Name,
    args: Arguments<Name>,
    options: ResultOptions = {},
  ): Promise<Buffer> {
    const { signal, data, onFrame, long = false } = options;
    if (isSmallCallName(name) && !long) {
      const payload = await this.#overChannel(`${repositoryId}/${name}`, args, options);
      if (payload !== undefined) return payload;
    }
    // A timer, since a signal for each call costs the making of one.
    const call = await this.call(repositoryId, name, args, {
      data,
      ...(signal === undefined ? { timeoutMs: callTimeoutMs } : { signal }),
    });
    try {
      for (;;) {
        const frame = await call.next();
        if (frame.type === 'end') return frame.payload;
        if (frame.type === 'json') onFrame?.(frame.payload);
      }
    } catch (error) {
      call.abandon();
      if (signal?.aborted === true) throw gaveUp();
      throw this.#told(error);
    }
  }

  /** Ends what runs. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#nudge.abort();
    clearTimeout(this.#releasing);
    this.#requests.destroy();
    this.#channel?.close(this.#goingDown());
    await this.#loop;
  }

  #check(signal: AbortSignal | undefined): void {
    if (signal?.aborted === true) throw gaveUp();
    if (this.#closing.signal.aborted) throw this.#goingDown();
    // A node that is gone would cost every caller the time to notice.
    if (!this.#reachable) throw this.#requests.gone('it did not answer');
  }

  #goingDown(): QuorateError {
    return this.#requests.gone('the server is shutting down');
  }

  /** The result of a call; undefined when it has to be a request. */
  async #overChannel(
    target: string,
    message: object,
    { signal, data, onFrame }: ResultOptions,
  ): Promise<Buffer | undefined> {
    this.#check(signal);
    const channel = this.#channel;
    if (channel === undefined) return undefined;
    const args = encodeMessage(message);
    if (!channel.takes(target.length + args.length + (data?.byteLength ?? 0))) return undefined;
    this.#onChannel += 1;
    try {
      return await channel.call({ target, args, data, signal, onFrame, timeoutMs: callTimeoutMs });
    } catch (error) {
      if (!(error instanceof NotAnswered)) throw this.#told(error);
      if (!channel.open) this.#nudge.abort();
      return undefined;
    } finally {
      this.#onChannel -= 1;
    }
  }

  /** The channel, opened when there is none yet. Undefined when the node has none. */
  async #openChannel(): Promise<ClientChannel | undefined> {
    const { credentials, logger } = this.#options;
    const tls = credentials.tls?.current;
    if (this.#channel?.open === true && this.#channelTls === tls) return this.#channel;
    if (this.#channelLess) return undefined;
    const opened = await this.#requests.openChannel(this.#closing.signal);
    this.#channelLess = opened === undefined;
    if (opened === undefined) return undefined;
    this.#channel?.retire();
    this.#channelTls = tls;
    this.#channel = new ClientChannel({
      ...opened,
      keys: channelKeys(credentials.secret, opened.mac),
      silenceMs: this.#limits.silenceMs,
      silent: () => this.#requests.gone('it is silent'),
      misled: (err) => {
        const { host, port } = this.address;
        const facts = {
          component: 'node-client',
          store: this.storeId,
          node: `${host}:${port}`,
          err,
        };
        logger.warn(facts, 'the channel to a storage node was ended');
      },
    });
    if (this.#closing.signal.aborted) this.#channel.close(this.#goingDown());
    return this.#channel;
  }

  /** The error with the node's name; one that says that the node is gone makes us look at once. */
  #told(error: unknown): QuorateError {
    const known = asQuorateError(error);
    if (known.code !== 'unavailable') return known;
    this.#nudge.abort();
    return known;
  }

  async #attendForEver(asked: () => void): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const nudge = new AbortController();
      this.#nudge = nudge;
      const reachable = await this.#attend();
      if (!signal.aborted) this.#note(reachable);
      asked();
      if (signal.aborted) return;
      // What was released, or failed, meanwhile is worth another look at once; but not more than one at a time.
      const pauseMs = reachable ? this.#limits.attendMs : this.#limits.retryMs;
      await clock.sleep(pauseMs, reachable ? nudge.signal : signal);
    }
  }

  #note(reachable: boolean): void {
    if (reachable === this.#reachable) return;
    this.#reachable = reachable;
    this.#answered ||= reachable;
    const { host, port } = this.address;
    const facts = { component: 'node-client', store: this.storeId, node: `${host}:${port}` };
    if (reachable) this.#options.logger.info(facts, 'a storage node answers');
    else this.#options.logger.warn(facts, 'a storage node does not answer');
    this.#options.onChange?.();
  }

  /** What an error says of credentials that do not fit. */
  #misfitOf(error: unknown): string | undefined {
    if (this.#refused) {
      return 'a storage node has another cluster secret than this process: all members need the same';
    }
    const hasTls = this.#options.credentials.tls !== undefined;
    return misfitWords(error, { hasTls, answered: this.#answered });
  }

  #complain(error: unknown): void {
    this.#complained = true;
    const { host, port } = this.address;
    const node = `${host}:${port}`;
    this.#options.logger.warn(
      { component: 'node-client', store: this.storeId, node, err: error },
      this.#misfit ?? 'a storage node did not answer a sign of life',
    );
  }

  async #attend(): Promise<boolean> {
    const released = this.#released.splice(0, maxReleasedAtOnce);
    try {
      const askedMs = this.#options.clock.nowMs();
      const answer = await this.#askWhetherItLives(encodeMessage({ released }));
      const { draining, nowMs, problem } = decodeMessage(attendResult, answer);
      this.#draining = draining;
      this.#problem = problem;
      this.#clock.note(nowMs, askedMs);
      this.#refused = false;
      this.#misfit = undefined;
      this.#complained = false;
      return true;
    } catch (error) {
      this.#released = [...released, ...this.#released].slice(-maxUnreleased);
      // It may be another version that answers next.
      this.#channelLess = false;
      this.#refused = error instanceof QuorateError && error.code === 'unauthenticated';
      this.#misfit = this.#misfitOf(error);
      if (!this.#closing.signal.aborted && !this.#complained) this.#complain(error);
      return false;
    }
  }

  async #askWhetherItLives(args: Buffer): Promise<Buffer> {
    // A channel may break without a word when its node ends; then another one is opened.
    for (let attempt = 1; attempt <= 2; attempt += 1) {
      const channel = await this.#openChannel();
      if (channel === undefined) break;
      try {
        return await channel.call({ target: 'attend', args, timeoutMs: callTimeoutMs });
      } catch (error) {
        if (!(error instanceof NotAnswered)) throw error;
      }
    }
    const call = await this.#requests.begin({
      path: `/v1/${this.storeId}/attend`,
      payload: args,
      signal: this.#closing.signal,
      duplex: false,
      attending: true,
    });
    return (await call.next()).payload;
  }
}

/** Sessions that end within it are given back together; a deletion may wait for it. */
const releaseDelayMs = 50;
const maxReleasedAtOnce = 1_000;
/** A node that is gone for so long has ended them by itself. */
const maxUnreleased = 10_000;
