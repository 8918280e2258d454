import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Accounts } from '../auth/accounts.js';
import type { GitService } from '../core/git-request.js';
import type { AuditLog } from '../observe/audit.js';
import { HttpAuthenticator } from './authenticator.js';
import { addressKey, ConcurrencyLimit } from './concurrency-limit.js';
import { HttpRefusal } from './error-map.js';
import { clientLeft, GitHandler } from './git-handler.js';
import { HttpExchange } from './http-exchange.js';
import type { HttpLimits } from './http-limits.js';
import { routeOf } from './route.js';
import { replyRefusal } from './text-reply.js';

export interface HttpListenerOptions {
  readonly service: GitService;
  readonly accounts: Accounts;
  readonly audit: AuditLog;
  /** Handles everything under `/api/`, with its own authentication; its 401s count for throttling. */
  readonly adminApi: (request: IncomingMessage, response: ServerResponse) => void;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: HttpLimits;
  /** Everybody is trusted. For loopback addresses only; the configuration sees to that. */
  readonly noAuth: boolean;
  /** Where clients reach this listener, when it is not what their Host header says. */
  readonly publicUrl?: string | undefined;
}

export interface HttpListener {
  /** Resolves with the address in use (port 0 asks for a free one). Rejects when it cannot be had. */
  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  /** Stops accepting, lets running requests end for `graceMs`, then ends them. Resolves when no socket is left. */
  drain(graceMs: number): Promise<void>;
}

/** Pipelined requests on one connection before it is closed. git never pipelines. */
const maxPipelined = 8;

/** How long ended requests have to hand over their answer after a drain. */
const abortGraceMs = 1_000;

/** Serves Git's smart HTTP (gitprotocol-http) and the admin API on one port. */
export function createHttpListener(options: HttpListenerOptions): HttpListener {
  return new Listener(options);
}

class Listener implements HttpListener {
  readonly #options: HttpListenerOptions;
  readonly #server: Server;
  readonly #authenticator: HttpAuthenticator;
  readonly #git: GitHandler;
  readonly #exchanges = new Map<Socket, Set<HttpExchange>>();
  readonly #addresses: ConcurrencyLimit;
  readonly #sockets = new Set<Socket>();
  readonly #refused = new WeakSet<Socket>();
  readonly #idPrefix: string;
  #requests = 0;
  #running = 0;
  #state: 'serving' | 'draining' = 'serving';
  #whenIdle: (() => void) | undefined;
  #sweep: NodeJS.Timeout | undefined;

  constructor(options: HttpListenerOptions) {
    const { limits, meter } = options;
    this.#options = options;
    this.#idPrefix = Buffer.from(options.random.bytes(6)).toString('hex');
    this.#authenticator = new HttpAuthenticator({
      ...options,
      maxFailuresPerMinute: limits.maxAuthenticationFailuresPerMinute,
    });
    this.#git = new GitHandler({ ...options, authenticator: this.#authenticator });
    this.#addresses = new ConcurrencyLimit(limits.maxConnectionsPerAddress);
    this.#server = createServer({
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersTimeoutMs,
      // Node's own limit counts a push that makes progress; idle and total time are limited below instead.
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.min(5_000, limits.headersTimeoutMs),
      noDelay: true,
    });
    this.#server.timeout = limits.idleTimeoutMs;
    this.#server.on('connection', (socket) => this.#accept(socket));
    this.#server.on('request', (request, response) => this.#handle(request, response));
    this.#server.on('checkContinue', (request, response) => this.#handle(request, response));
    this.#server.on('timeout', (socket) => this.#idle(socket));
    this.#server.on('clientError', (error, socket) => this.#malformed(error, socket));
    meter.gauge('connections', { transport: 'http' }, () => this.#sockets.size);
  }

  async listen(host: string, port: number): Promise<{ host: string; port: number }> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.removeListener('error', reject);
        resolve();
      });
    });
    // Total time is a matter of hours: looking every second is exact enough, and costs nothing per request.
    this.#sweep = setInterval(() => this.#endOverdue(), 1_000).unref();
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no TCP address');
    return { host: address.address, port: address.port };
  }

  async drain(graceMs: number): Promise<void> {
    const { clock } = this.#options;
    this.#state = 'draining';
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeIdleConnections();
    const idle = new Promise<void>((resolve) => {
      this.#whenIdle = resolve;
      if (this.#running === 0) resolve();
    });
    const waited = new AbortController();
    await Promise.race([idle, clock.sleep(graceMs, waited.signal)]);
    const reason = new QuorateError(
      'unavailable',
      'The server is shutting down: try again in a moment.',
    );
    for (const exchange of this.#all()) exchange.stop(reason);
    await Promise.race([idle, clock.sleep(abortGraceMs, waited.signal)]);
    waited.abort();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    clearInterval(this.#sweep);
  }

  #accept(socket: Socket): void {
    const { limits } = this.#options;
    const key = addressKey(socket.remoteAddress ?? '');
    if (this.#sockets.size >= limits.maxConnections) {
      this.#turnAway(socket, '503 Service Unavailable', 'The server has too many connections.');
      return;
    }
    if (!this.#addresses.enter(key)) {
      this.#turnAway(socket, '429 Too Many Requests', 'Your address has too many connections.');
      return;
    }
    this.#sockets.add(socket);
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.#addresses.leave(key);
      // A pipelined request has no answer on the socket yet, so the answers' own events would not tell all of them.
      for (const exchange of this.#exchanges.get(socket) ?? []) exchange.stop(clientLeft());
    });
  }

  /** Answers without waiting for the request, and without reading it. */
  #turnAway(socket: Socket, status: string, sentence: string): void {
    this.#refused.add(socket);
    socket.on('error', () => {});
    socket.end(rawReply(status, sentence, 'Retry-After: 5\r\n'));
    // Long enough for the answer to be read before a reset.
    const timer = setTimeout(() => socket.destroy(), 1_000).unref();
    socket.on('close', () => clearTimeout(timer));
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    if (this.#refused.has(socket)) return;
    const onSocket = this.#exchanges.get(socket) ?? new Set();
    if (onSocket.size >= maxPipelined) {
      socket.destroy();
      return;
    }
    this.#requests += 1;
    const exchange = new HttpExchange(request, response, {
      requestId: `${this.#idPrefix}-${this.#requests.toString(36)}`,
      startedAtMs: this.#options.clock.monotonicMs(),
    });
    this.#exchanges.set(socket, onSocket.add(exchange));
    this.#running += 1;
    request.on('error', () => {});
    response.on('error', () => {});
    void this.#serve(exchange).finally(() => this.#finished(exchange));
  }

  async #serve(exchange: HttpExchange): Promise<void> {
    const { request, response } = exchange;
    try {
      if (this.#state === 'draining') {
        response.shouldKeepAlive = false;
        throw new HttpRefusal(503, 'The server is shutting down: try again in a moment.', {
          'Retry-After': '5',
        });
      }
      const route = routeOf(request.method ?? '', request.url ?? '');
      if (route.kind === 'api') await this.#api(exchange);
      else await this.#git.serve(exchange, route);
    } catch (error) {
      const refusal =
        error instanceof HttpRefusal ? error : new HttpRefusal(500, 'The server failed.');
      if (refusal.status === 500) {
        const fields = { component: 'http', request_id: exchange.requestId, err: error };
        this.#options.logger.error(fields, 'request failed');
      }
      this.#options.meter.count('requests', {
        transport: 'http',
        service: 'none',
        outcome: 'refused',
      });
      if (response.headersSent) request.socket.destroy();
      else await replyRefusal(request, response, refusal);
    }
  }

  async #api(exchange: HttpExchange): Promise<void> {
    const { request, response, remoteAddress } = exchange;
    if (request.headers.authorization !== undefined) {
      this.#authenticator.refuseThrottled(remoteAddress);
    }
    if (request.headers.expect !== undefined) response.writeContinue();
    const closed = new Promise<void>((resolve) => {
      response.once('close', resolve);
      exchange.signal.addEventListener('abort', () => resolve());
    });
    this.#options.adminApi(request, response);
    await closed;
    if (response.statusCode === 401 && request.headers.authorization !== undefined) {
      this.#authenticator.failed(remoteAddress);
    }
  }

  #finished(exchange: HttpExchange): void {
    const { socket } = exchange.request;
    const onSocket = this.#exchanges.get(socket);
    onSocket?.delete(exchange);
    if (onSocket?.size === 0) this.#exchanges.delete(socket);
    this.#running -= 1;
    if (this.#state !== 'draining') return;
    // The answer may still sit in the socket's buffer; idle connections are those where nothing is left to send.
    if (socket.writableLength === 0) this.#server.closeIdleConnections();
    else socket.destroySoon();
    if (this.#running === 0) this.#whenIdle?.();
  }

  /** The socket was silent for the idle time. Not the client's fault while git is at work for it. */
  #idle(socket: Socket): void {
    const onSocket = this.#exchanges.get(socket);
    if (onSocket === undefined) {
      socket.destroy();
      return;
    }
    for (const exchange of onSocket) {
      if (!exchange.waitsForClient) continue;
      exchange.stop(new HttpRefusal(408, 'The client was silent for too long.'));
      if (exchange.response.headersSent) socket.destroy();
    }
    socket.setTimeout(this.#options.limits.idleTimeoutMs);
  }

  #endOverdue(): void {
    const startedBeforeMs =
      this.#options.clock.monotonicMs() - this.#options.limits.requestTimeoutMs;
    for (const exchange of this.#all()) {
      if (exchange.startedAtMs >= startedBeforeMs) continue;
      exchange.stop(
        new QuorateError('deadline-exceeded', 'The request took longer than is allowed.'),
      );
    }
  }

  /** What the HTTP parser refused: bad framing, both lengths, too many headers, headers that took too long. */
  #malformed(error: Error & { code?: string }, socket: Duplex): void {
    const running = socket instanceof Socket ? [...(this.#exchanges.get(socket) ?? [])] : [];
    const answered = running.some(({ response }) => response.headersSent);
    const [status, sentence] = malformedReplies[error.code ?? ''] ?? notHttp;
    for (const exchange of running) {
      exchange.stop(new HttpRefusal(Number(status.slice(0, 3)), sentence));
    }
    if (socket.writable && !answered && error.code !== 'ECONNRESET') {
      socket.end(rawReply(status, sentence, ''));
    } else {
      socket.destroy();
    }
  }

  *#all(): Iterable<HttpExchange> {
    for (const exchanges of this.#exchanges.values()) yield* exchanges;
  }
}

const malformedReplies: Readonly<Record<string, readonly [string, string]>> = {
  HPE_HEADER_OVERFLOW: [
    '431 Request Header Fields Too Large',
    'The request headers are too large.',
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'The request headers took too long.'],
};
const notHttp = ['400 Bad Request', 'This is not a valid HTTP/1.1 request.'] as const;

function rawReply(status: string, sentence: string, headers: string): string {
  const body = `${sentence}\n`;
  return `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}Connection: close\r\n\r\n${body}`;
}
