import { Agent, type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Clock, Logger, Random } from '../contract/environment.js';
import { asQuorateError, QuorateError } from '../contract/errors.js';
import { Deferred } from '../git/spawner/deferred.js';
import { ClientCall } from './client-call.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import { wholeFrame } from './frames.js';
import {
  type Arguments,
  attendResult,
  type CallName,
  decodeMessage,
  duplexCalls,
  encodeMessage,
} from './messages.js';
import { answerProof, digestOf, sameText, sign } from './request-signature.js';
import { decodeError } from './wire-error.js';

export interface NodeAddress {
  readonly host: string;
  readonly port: number;
}

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

/** Longer than a small repository's whole repack; without a signal, a call has to end some time. */
const callTimeoutMs = 15 * 60_000;
/** Below the server's own, so that it never closes a connection that is just being used. */
const idleConnectionMs = 15_000;

/** Connections to one storage node, and what is known of whether it answers. */
export class NodeClient {
  readonly storeId: string;
  readonly address: NodeAddress;
  readonly #options: NodeClientOptions;
  readonly #limits: NodeClientLimits;
  readonly #agent: Agent;
  /** Signs of life have connections of their own: they do not wait behind clones. */
  readonly #attending: Agent;
  readonly #id: string;
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;
  /** Cuts the pause between two signs of life short. */
  #nudge = new AbortController();
  #boot = '0'.repeat(32);
  #count = 0;
  #running = 0;
  #reachable = false;
  #refused = false;
  /** Why it does not answer was said, and nothing has changed since. */
  #complained = false;
  #draining = false;
  /** Read sessions given back, of which the node does not know yet. */
  #released: string[] = [];
  #releasing: NodeJS.Timeout | undefined;

  constructor(options: NodeClientOptions) {
    this.#options = options;
    this.storeId = options.storeId;
    this.address = options.address;
    this.#limits = { ...defaultNodeClientLimits, ...options.limits };
    this.#id = this.newId();
    this.#agent = makeAgent(options.credentials, this.#limits);
    this.#attending = makeAgent(options.credentials, { maxConnections: 2, maxIdleConnections: 1 });
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

  /** The node takes no new work. */
  get draining(): boolean {
    return this.#draining;
  }

  /** Calls that run there from here. */
  get running(): number {
    return this.#running;
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
    if (signal?.aborted === true) throw gaveUp();
    if (this.#closing.signal.aborted) throw this.#gone('the server is shutting down');
    // A node that is gone would cost every caller the time to notice.
    if (!this.#reachable) throw this.#gone('it did not answer');
    const path = `/v1/${this.storeId}/${repositoryId}/${name}`;
    return this.#begin({
      path,
      args,
      data,
      signal,
      timeoutMs,
      duplex: data === undefined && duplexCalls.has(name),
      agent: this.#agent,
    });
  }

  /** A call whose answer is its result. Frames before the last go to `onFrame`. */
  async result<Name extends CallName>(
    repositoryId: string,
    name: Name,
    args: Arguments<Name>,
    options: CallOptions & { readonly onFrame?: (payload: Buffer) => void } = {},
  ): Promise<Buffer> {
    const { signal, data } = options;
    // A timer, since a signal for each call costs the making of one.
    const call = await this.call(repositoryId, name, args, {
      data,
      ...(signal === undefined ? { timeoutMs: callTimeoutMs } : { signal }),
    });
    try {
      for (;;) {
        const frame = await call.next();
        if (frame.type === 'end') return frame.payload;
        if (frame.type === 'json') options.onFrame?.(frame.payload);
      }
    } catch (error) {
      call.abandon();
      if (options.signal?.aborted === true) throw gaveUp();
      throw this.#told(error);
    }
  }

  /** Ends what runs. Idempotent. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#nudge.abort();
    clearTimeout(this.#releasing);
    this.#agent.destroy();
    this.#attending.destroy();
    await this.#loop;
  }

  /** The error with the node's name; one that says that the node is gone makes us look at once. */
  #told(error: unknown): QuorateError {
    const known = asQuorateError(error);
    if (known.code !== 'unavailable') return known;
    this.#nudge.abort();
    return known;
  }

  #gone(why: string, cause?: unknown): QuorateError {
    const { host, port } = this.address;
    return new QuorateError('unavailable', `the storage node cannot be reached: ${why}`, {
      details: { node: `${host}:${port}` },
      cause,
    });
  }

  async #begin(asked: Asked): Promise<ClientCall> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#send(asked);
      } catch (error) {
        const again = error instanceof Retry && attempt < 3;
        if (asked.signal?.aborted === true) throw gaveUp();
        if (again) continue;
        const failure = error instanceof Retry ? error.cause : error;
        throw this.#told(
          failure instanceof QuorateError ? failure : this.#gone('no connection', failure),
        );
      }
    }
  }

  #send({ path, args, data, signal, timeoutMs, duplex, agent }: Asked): Promise<ClientCall> {
    const payload = encodeMessage(args);
    const first = firstMessage(payload, data);
    const boot = this.#boot;
    const { headers, mac } = this.#signed(path, payload);
    const request = this.#request(path, agent, {
      ...headers,
      ...(duplex ? {} : { 'Content-Length': String(first.length) }),
    });
    const abort = (): void => void request.destroy(gaveUp());
    signal?.addEventListener('abort', abort);
    const timer = timeoutMs === undefined ? undefined : setTimeout(abort, timeoutMs).unref();
    this.#running += 1;
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      this.#running -= 1;
      signal?.removeEventListener('abort', abort);
      clearTimeout(timer);
    };
    const silent = (): QuorateError => this.#gone('it is silent');
    return new Promise((resolve, reject) => {
      const answered = afterSilence(this.#limits.silenceMs, () => request.destroy(silent()));
      request.once('close', () => {
        answered();
        end();
      });
      request.on('error', (error: Error) => {
        const reused = request.reusedSocket && !(error instanceof QuorateError);
        reject(reused ? new Retry(error) : error);
      });
      request.on('response', (response: IncomingMessage) => {
        answered();
        if (response.statusCode !== 200) {
          this.#readRefusal(request, response, boot).then(reject, reject);
          return;
        }
        if (!this.#isProven(response, mac)) {
          const message = 'what answers at the address of a storage node lacks the cluster secret';
          request.destroy();
          reject(new QuorateError('unauthenticated', message));
          return;
        }
        const { silenceMs } = this.#limits;
        resolve(new ClientCall({ request, response, duplex, silenceMs, silent, over: end }));
      });
      if (duplex) {
        request.flushHeaders();
        request.write(first);
      } else {
        request.end(first);
      }
    });
  }

  #request(path: string, agent: Agent, headers: Readonly<Record<string, string>>): ClientRequest {
    const { tls } = this.#options.credentials;
    const { host, port } = this.address;
    const options = { host, port, path, agent, method: 'POST', headers };
    // The agent tells connections apart by their certificates: those of before end when they are idle.
    return tls === undefined ? httpRequest(options) : httpsRequest({ ...options, ...tls.current });
  }

  #signed(
    path: string,
    payload: Uint8Array,
  ): { readonly headers: Record<string, string>; readonly mac: string | undefined } {
    const headers: Record<string, string> = { 'Quorate-Client': this.#id };
    const { secret } = this.#options.credentials;
    if (secret === undefined) return { headers, mac: undefined };
    this.#count += 1;
    const { authorization, mac } = sign(secret, {
      boot: this.#boot,
      client: this.#id,
      count: this.#count,
      path,
      argumentsDigest: digestOf(payload),
    });
    headers['Authorization'] = authorization;
    return { headers, mac };
  }

  #isProven(response: IncomingMessage, mac: string | undefined): boolean {
    const { secret } = this.#options.credentials;
    if (secret === undefined || mac === undefined) return true;
    return sameText(String(response.headers['quorate-proof'] ?? ''), answerProof(secret, mac));
  }

  /** Why the node did not take the call. A node that began anew tells what it wants named; then it is asked again. */
  async #readRefusal(
    request: ClientRequest,
    response: IncomingMessage,
    usedBoot: string,
  ): Promise<Error> {
    const boot = String(response.headers['quorate-boot'] ?? '');
    const parts: Buffer[] = [];
    let sizeBytes = 0;
    try {
      for await (const part of response.iterator() as AsyncIterable<Buffer>) {
        sizeBytes += part.length;
        if (sizeBytes > maxRefusalBytes) break;
        parts.push(part);
      }
    } catch {
      // The status says enough.
    }
    request.destroy();
    const error = decodeError(Buffer.concat(parts));
    if (response.statusCode !== 401 || boot === usedBoot || !/^[0-9a-f]{32}$/.test(boot)) {
      return error;
    }
    this.#boot = boot;
    return new Retry(error);
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
    const { host, port } = this.address;
    const facts = { component: 'node-client', store: this.storeId, node: `${host}:${port}` };
    if (reachable) this.#options.logger.info(facts, 'a storage node answers');
    else this.#options.logger.warn(facts, 'a storage node does not answer');
    this.#options.onChange?.();
  }

  #complain(error: unknown): void {
    this.#complained = true;
    const { host, port } = this.address;
    const node = `${host}:${port}`;
    this.#options.logger.warn(
      { component: 'node-client', store: this.storeId, node, err: error },
      this.#refused
        ? 'a storage node has another cluster secret than this process: all members need the same'
        : 'a storage node did not answer a sign of life',
    );
  }

  async #attend(): Promise<boolean> {
    const released = this.#released.splice(0, maxReleasedAtOnce);
    try {
      const call = await this.#begin({
        path: `/v1/${this.storeId}/attend`,
        args: { released },
        signal: this.#closing.signal,
        duplex: false,
        agent: this.#attending,
      });
      const frame = await call.next();
      this.#draining = decodeMessage(attendResult, frame.payload).draining;
      this.#refused = false;
      this.#complained = false;
      return true;
    } catch (error) {
      this.#released = [...released, ...this.#released].slice(-maxUnreleased);
      this.#refused = error instanceof QuorateError && error.code === 'unauthenticated';
      if (!this.#closing.signal.aborted && !this.#complained) this.#complain(error);
      return false;
    }
  }
}

interface Asked {
  readonly path: string;
  readonly args: object;
  readonly data?: Uint8Array | undefined;
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  readonly duplex: boolean;
  readonly agent: Agent;
}

function firstMessage(args: Uint8Array, data: Uint8Array | undefined): Buffer {
  const first = wholeFrame('json', args);
  if (data === undefined) return first;
  return Buffer.concat([first, wholeFrame('data', data), wholeFrame('mark')]);
}

/** Not taken by the node, so that it may be asked again. */
class Retry extends Error {
  constructor(cause: Error) {
    super('the call was not taken', { cause });
  }
}

/** Sessions that end within it are given back together; a deletion may wait for it. */
const releaseDelayMs = 50;
const maxRefusalBytes = 16 * 1024;
const maxReleasedAtOnce = 1_000;
/** A node that is gone for so long has ended them by itself. */
const maxUnreleased = 10_000;

function makeAgent(
  { tls }: ClusterCredentials,
  limits: Pick<NodeClientLimits, 'maxConnections' | 'maxIdleConnections'>,
): Agent {
  const options = {
    keepAlive: true,
    maxSockets: limits.maxConnections,
    maxFreeSockets: limits.maxIdleConnections,
    // The connection used last is the one least likely to have been closed.
    scheduling: 'lifo' as const,
    noDelay: true,
    timeout: idleConnectionMs,
  };
  return tls === undefined
    ? new Agent(options)
    : new HttpsAgent({ ...options, minVersion: 'TLSv1.3' });
}

/**
 * Calls `silent` unless the returned function is called in time. As in `FrameReader`: a process that was busy itself
 * looks at what came before it judges.
 */
function afterSilence(silenceMs: number, silent: () => void): () => void {
  let over = false;
  const timer = setTimeout(() => {
    setImmediate(() => setImmediate(() => over || silent()));
  }, silenceMs);
  return () => {
    over = true;
    clearTimeout(timer);
  };
}

function gaveUp(): QuorateError {
  return new QuorateError('cancelled', 'the caller gave up');
}
