import { Agent, type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { QuorateError } from '../contract/errors.js';
import { channelProtocol } from './channel-wire.js';
import { ClientCall } from './client-call.js';
import type { ClusterCredentials } from './cluster-credentials.js';
import { wholeFrame } from './frames.js';
import { answerProof, digestOf, sameText, sign } from './request-signature.js';
import { decodeError } from './wire-error.js';

export interface NodeAddress {
  readonly host: string;
  readonly port: number;
}

export interface NodeRequestsOptions {
  readonly address: NodeAddress;
  readonly storeId: string;
  readonly credentials: ClusterCredentials;
  /** Random id of this process. */
  readonly client: string;
  readonly silenceMs: number;
  readonly maxConnections: number;
  readonly maxIdleConnections: number;
}

export interface Asked {
  readonly path: string;
  /** The arguments. */
  readonly payload: Uint8Array;
  readonly data?: Uint8Array | undefined;
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  readonly duplex: boolean;
  /** A sign of life: it has a connection of its own. */
  readonly attending?: boolean;
}

/** A connection that became a channel. */
export interface OpenedChannel {
  readonly socket: Socket;
  readonly head: Buffer;
  /** Of the request that opened it. */
  readonly mac: string | undefined;
}

/** Below the server's own, so that it never closes a connection that is just being used. */
const idleConnectionMs = 15_000;

/** Requests to one storage node, over connections that are kept. */
export class NodeRequests {
  readonly #options: NodeRequestsOptions;
  readonly #agent: Agent;
  /** Signs of life, and what opens channels, do not wait behind clones. */
  readonly #attending: Agent;
  #boot = '0'.repeat(32);
  #count = 0;
  #running = 0;

  constructor(options: NodeRequestsOptions) {
    this.#options = options;
    this.#agent = makeAgent(options.credentials, options);
    this.#attending = makeAgent(options.credentials, { maxConnections: 2, maxIdleConnections: 1 });
  }

  get running(): number {
    return this.#running;
  }

  /**
   * Begins a call; resolves with the head of the answer. A connection that broke before it is tried once more, on
   * another connection: nothing has happened by then, or what has is idempotent.
   */
  begin(asked: Asked): Promise<ClientCall> {
    return this.#tried(asked.signal, () => this.#send(asked));
  }

  /**
   * Asks for a channel; undefined when what answers has none to give: requests find out why, if that is more than an
   * earlier version.
   */
  openChannel(signal: AbortSignal): Promise<OpenedChannel | undefined> {
    return this.#tried(signal, () => this.#upgrade(signal));
  }

  destroy(): void {
    this.#agent.destroy();
    this.#attending.destroy();
  }

  /** That the node cannot be reached. */
  gone(why: string, cause?: unknown): QuorateError {
    const { host, port } = this.#options.address;
    return new QuorateError('unavailable', `the storage node cannot be reached: ${why}`, {
      details: { node: `${host}:${port}` },
      cause,
    });
  }

  async #tried<T>(signal: AbortSignal | undefined, send: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await send();
      } catch (error) {
        const again = error instanceof Retry && attempt < 3;
        if (signal?.aborted === true) throw gaveUp();
        if (again) continue;
        const failure = error instanceof Retry ? error.cause : error;
        throw failure instanceof QuorateError ? failure : this.gone('no connection', failure);
      }
    }
  }

  #send({ path, payload, data, signal, timeoutMs, duplex, attending }: Asked): Promise<ClientCall> {
    const agent = attending === true ? this.#attending : this.#agent;
    const first = firstMessage(payload, data);
    const boot = this.#boot;
    const { headers, mac } = this.#signed(path, payload);
    const length = duplex ? {} : { 'Content-Length': String(first.length) };
    const request = this.#request(path, agent, {
      method: 'POST',
      headers: { ...headers, ...length },
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
    return new Promise((resolve, reject) => {
      const answered = afterSilence(this.#options.silenceMs, () => request.destroy(this.#silent()));
      request.once('close', () => {
        answered();
        end();
      });
      request.on('error', (error: Error) => {
        reject(this.#failed(request, error));
      });
      request.on('response', (response: IncomingMessage) => {
        answered();
        if (response.statusCode !== 200) {
          this.#readRefusal(request, response, boot).then(reject, reject);
          return;
        }
        if (!this.#isProven(response, mac)) {
          request.destroy();
          reject(impostor());
          return;
        }
        const { silenceMs } = this.#options;
        resolve(
          new ClientCall({
            request,
            response,
            duplex,
            silenceMs,
            silent: () => this.#silent(),
            over: end,
          }),
        );
      });
      if (duplex) {
        request.flushHeaders();
        request.write(first);
      } else {
        request.end(first);
      }
    });
  }

  #upgrade(signal: AbortSignal): Promise<OpenedChannel | undefined> {
    const path = `/v1/${this.#options.storeId}/channel`;
    const boot = this.#boot;
    const { headers, mac } = this.#signed(path, Buffer.alloc(0));
    const request = this.#request(path, this.#attending, {
      method: 'GET',
      headers: { ...headers, Connection: 'Upgrade', Upgrade: channelProtocol },
    });
    const abort = (): void => void request.destroy(gaveUp());
    signal.addEventListener('abort', abort);
    return new Promise((resolve, reject) => {
      const answered = afterSilence(this.#options.silenceMs, () => request.destroy(this.#silent()));
      request.once('close', () => {
        answered();
        signal.removeEventListener('abort', abort);
      });
      request.on('error', (error: Error) => reject(this.#failed(request, error)));
      request.on('response', (response: IncomingMessage) => {
        answered();
        if (response.statusCode === 401) {
          this.#readRefusal(request, response, boot).then(reject, reject);
          return;
        }
        request.destroy();
        resolve(undefined);
      });
      request.on('upgrade', (response: IncomingMessage, socket: Socket, head: Buffer) => {
        answered();
        if (this.#isProven(response, mac)) {
          resolve({ socket, head, mac });
          return;
        }
        socket.destroy();
        reject(impostor());
      });
      request.end();
    });
  }

  /** What has become of a request: on a connection that was used before it may have come too late. */
  #failed(request: ClientRequest, error: Error): Error {
    return request.reusedSocket && !(error instanceof QuorateError) ? new Retry(error) : error;
  }

  #silent(): QuorateError {
    return this.gone('it is silent');
  }

  #request(
    path: string,
    agent: Agent,
    how: { readonly method: string; readonly headers: Readonly<Record<string, string>> },
  ): ClientRequest {
    const { tls } = this.#options.credentials;
    const { host, port } = this.#options.address;
    const options = { host, port, path, agent, ...how };
    // The agent tells connections apart by their certificates: those of before end when they are idle.
    return tls === undefined ? httpRequest(options) : httpsRequest({ ...options, ...tls.current });
  }

  #signed(
    path: string,
    payload: Uint8Array,
  ): { readonly headers: Record<string, string>; readonly mac: string | undefined } {
    const headers: Record<string, string> = { 'Quorate-Client': this.#options.client };
    const { secret } = this.#options.credentials;
    if (secret === undefined) return { headers, mac: undefined };
    this.#count += 1;
    const { authorization, mac } = sign(secret, {
      boot: this.#boot,
      client: this.#options.client,
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

const maxRefusalBytes = 16 * 1024;

function makeAgent(
  { tls }: ClusterCredentials,
  limits: Pick<NodeRequestsOptions, 'maxConnections' | 'maxIdleConnections'>,
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

function impostor(): QuorateError {
  const message = 'what answers at the address of a storage node lacks the cluster secret';
  return new QuorateError('unauthenticated', message);
}

export function gaveUp(): QuorateError {
  return new QuorateError('cancelled', 'the caller gave up');
}
