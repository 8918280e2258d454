import { createServer, IncomingMessage, type Server, ServerResponse } from 'node:http';
import {
  constants,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { Accounts } from '../auth/accounts.js';
import type { GitService } from '../core/git-request.js';
import type { AuditLog } from '../observe/audit.js';
import { RefusalLog } from '../observe/refusal-log.js';
import { HttpAuthenticator } from './authenticator.js';
import type { CertificateSource } from './certificate.js';
import { addressKey, ConcurrencyLimit } from '../core/concurrency-limit.js';
import { asProblem, HttpRefusal } from './error-map.js';
import { clientLeft, GitHandler } from './git-handler.js';
import { HttpExchange } from './http-exchange.js';
import type { HttpLimits } from './http-limits.js';
import {
  breakOff,
  closeAfter,
  connectionOf,
  type HttpConnection,
  type HttpRequest,
  type HttpResponse,
} from './http-message.js';
import { malformedReply, rawReply } from './raw-reply.js';
import { routeOf } from './route.js';
import { replyRefusal } from './text-reply.js';
import { createTlsServer, type TlsServer } from './tls-server.js';

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
  /** With it the port speaks TLS, and HTTP/1.1 and HTTP/2 on it; without, plain HTTP/1.1. */
  readonly tls?: CertificateSource | undefined;
  /** Where clients reach this listener, when it is not what their Host header says. */
  readonly publicUrl?: string | undefined;
}

export interface HttpListener {
  /** Resolves with the address in use (port 0 asks for a free one). Rejects when it cannot be had. */
  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  /** Stops accepting, lets running requests end for `graceMs`, then ends them. Resolves when no socket is left. */
  drain(graceMs: number): Promise<void>;
}

/** To the admin API's clients in its own form (RFC 9457), to git in text. */
function asAnswered({ request, requestId }: HttpExchange, refusal: HttpRefusal): HttpRefusal {
  const isApi = request.url?.startsWith('/api/') === true;
  return isApi ? asProblem(refusal, requestId) : refusal;
}

/** What RFC 9110 demands of every request: sections 7.2 (a Host) and 10.1.1 (no expectation that is not met). */
function checkHeaders({ request, response }: HttpExchange): void {
  const { host, expect } = request.headers;
  if (request.httpVersion === '1.1' && host === undefined) {
    closeAfter(response);
    throw new HttpRefusal(400, 'The request has no Host header, which HTTP/1.1 demands.');
  }
  if (expect === undefined || request.httpVersion === '1.0') return;
  if (expect.toLowerCase() !== '100-continue') {
    throw new HttpRefusal(417, 'The only expectation that is met here is 100-continue.');
  }
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
  readonly #http2: Http2Server | undefined;
  readonly #authenticator: HttpAuthenticator;
  readonly #git: GitHandler;
  readonly #refusals: RefusalLog;
  readonly #running = new Set<HttpExchange>();
  readonly #exchanges = new WeakMap<HttpConnection, Set<HttpExchange>>();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #addresses: ConcurrencyLimit;
  readonly #sockets = new Set<Socket>();
  readonly #refused = new WeakSet<object>();
  readonly #idPrefix: string;
  #requests = 0;
  #state: 'serving' | 'draining' = 'serving';
  #whenIdle: (() => void) | undefined;
  #whenNoSession: (() => void) | undefined;
  #sweep: NodeJS.Timeout | undefined;

  constructor(options: HttpListenerOptions) {
    const { limits, meter } = options;
    this.#options = options;
    this.#idPrefix = Buffer.from(options.random.bytes(6)).toString('hex');
    this.#authenticator = new HttpAuthenticator({
      ...options,
      maxFailuresPerMinute: limits.maxAuthenticationFailuresPerMinute,
    });
    this.#refusals = new RefusalLog(options);
    this.#git = new GitHandler({
      ...options,
      authenticator: this.#authenticator,
      refusals: this.#refusals,
    });
    this.#addresses = new ConcurrencyLimit(limits.maxConnectionsPerAddress);
    const http1 = {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersTimeoutMs,
      // Node's own limit counts a push that makes progress; idle and total time are limited below instead.
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.min(5_000, limits.headersTimeoutMs),
      noDelay: true,
      // Node's own refusals of a missing Host header and of an unknown Expect have no sentence: see `checkHeaders`.
      requireHostHeader: false,
    };
    const tls =
      options.tls === undefined
        ? undefined
        : createTlsServer(http1, { certificate: options.tls, limits });
    this.#server = tls?.http1 ?? createServer(http1);
    this.#http2 = tls?.http2;
    this.#server.timeout = limits.idleTimeoutMs;
    this.#server.on('connection', (socket) => this.#accept(socket));
    this.#server.on('timeout', (socket) => this.#idle(socket));
    this.#server.on('clientError', (error, socket) => this.#malformed(error, socket));
    for (const event of ['request', 'checkContinue', 'checkExpectation'] as const) {
      this.#server.on(event, (request, response) => this.#handle(request, response));
      this.#http2?.on(event, (request, response) => this.#handle(request, response));
    }
    tls?.http2.on('session', (session) => this.#acceptSession(session, tls.end));
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
    // GOAWAY: no new requests; a session ends when those that run have.
    for (const session of this.#sessions) session.close();
    const idle = new Promise<void>((resolve) => {
      this.#whenIdle = resolve;
      if (this.#running.size === 0) resolve();
    });
    const waited = new AbortController();
    await Promise.race([idle, clock.sleep(graceMs, waited.signal)]);
    const reason = new QuorateError(
      'unavailable',
      'The server is shutting down: try again in a moment.',
    );
    for (const exchange of this.#running) exchange.stop(reason);
    await Promise.race([idle, clock.sleep(abortGraceMs, waited.signal)]);
    // The answers are with the sessions, which may still have to send them.
    if (this.#sessions.size > 0) {
      const sent = new Promise<void>((resolve) => {
        this.#whenNoSession = resolve;
      });
      await Promise.race([sent, clock.sleep(abortGraceMs, waited.signal)]);
    }
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
    });
  }

  #acceptSession(session: ServerHttp2Session, end: TlsServer['end']): void {
    this.#sessions.add(session);
    session.on('close', () => {
      this.#sessions.delete(session);
      if (this.#sessions.size === 0) this.#whenNoSession?.();
    });
    // As long as an idle HTTP/1.1 connection is kept. Streams have times of their own.
    const idle = (): void => {
      if ((this.#exchanges.get(session)?.size ?? 0) === 0) end(session);
      else session.setTimeout(this.#options.limits.keepAliveTimeoutMs, idle);
    };
    session.setTimeout(this.#options.limits.keepAliveTimeoutMs, idle);
    if (this.#state === 'draining') session.close();
  }

  #recordLimit(remoteAddress: string, reason: string): void {
    const details = { reason };
    const about = { actor: 'unknown', remoteAddress, transport: 'http' } as const;
    this.#refusals.record({ event: 'limit', ...about, details });
  }

  /** Answers without waiting for the request, and without reading it. */
  #turnAway(socket: Socket, status: string, sentence: string): void {
    this.#recordLimit(socket.remoteAddress ?? '', sentence);
    this.#refused.add(socket);
    socket.on('error', () => {});
    // Over TLS it could only be read after a handshake, which is what there are too many of.
    if (this.#http2 !== undefined) {
      socket.destroy();
      return;
    }
    socket.end(rawReply(status, sentence, 'Retry-After: 5\r\n'));
    // Long enough for the answer to be read before a reset.
    const timer = setTimeout(() => socket.destroy(), 1_000).unref();
    socket.on('close', () => clearTimeout(timer));
  }

  #handle(request: HttpRequest, response: HttpResponse): void {
    const connection = connectionOf(request);
    if (connection === undefined || this.#refused.has(connection)) return;
    const onConnection = this.#exchangesOn(connection);
    if (connection instanceof Socket && onConnection.size >= maxPipelined) {
      connection.destroy();
      return;
    }
    this.#requests += 1;
    const exchange = new HttpExchange(request, response, {
      requestId: `${this.#idPrefix}-${this.#requests.toString(36)}`,
      startedAtMs: this.#options.clock.monotonicMs(),
    });
    onConnection.add(exchange);
    this.#running.add(exchange);
    request.on('error', () => {});
    response.on('error', () => {});
    if (!(request instanceof IncomingMessage)) this.#watchStream(exchange, request.stream);
    void this.#serve(exchange).finally(() => this.#finished(exchange, onConnection));
  }

  /** The requests that run on a connection. They end with it. */
  #exchangesOn(connection: HttpConnection): Set<HttpExchange> {
    const known = this.#exchanges.get(connection);
    if (known !== undefined) return known;
    const exchanges = new Set<HttpExchange>();
    this.#exchanges.set(connection, exchanges);
    // A pipelined request has no answer on the socket yet, so the answers' own events would not tell all of them.
    const closed = (): void => {
      for (const exchange of exchanges) exchange.stop(clientLeft());
    };
    if (connection instanceof Socket) connection.once('close', closed);
    else connection.once('close', closed);
    return exchanges;
  }

  /** A stream of HTTP/2 ends, and is silent, by itself. */
  #watchStream(exchange: HttpExchange, stream: ServerHttp2Stream): void {
    stream.once('close', () => {
      if (!stream.writableFinished) exchange.stop(clientLeft());
    });
    const idle = (): void => {
      this.#silent(exchange);
      if (!stream.destroyed) stream.setTimeout(this.#options.limits.idleTimeoutMs, idle);
    };
    stream.setTimeout(this.#options.limits.idleTimeoutMs, idle);
  }

  async #serve(exchange: HttpExchange): Promise<void> {
    const { request, response } = exchange;
    try {
      if (this.#state === 'draining') {
        closeAfter(response);
        throw new HttpRefusal(503, 'The server is shutting down: try again in a moment.', {
          'Retry-After': '5',
        });
      }
      checkHeaders(exchange);
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
      if (refusal.status === 429) this.#recordLimit(exchange.remoteAddress, refusal.message);
      if (response.headersSent) breakOff(request);
      else await replyRefusal(exchange, asAnswered(exchange, refusal));
    }
  }

  async #api(exchange: HttpExchange): Promise<void> {
    const { request, response, remoteAddress } = exchange;
    if (!(request instanceof IncomingMessage) || !(response instanceof ServerResponse)) {
      // The admin API is made with Express, which knows no HTTP/2. RFC 9113 section 7: ask again with HTTP/1.1.
      if (!(request instanceof IncomingMessage)) {
        request.stream.close(constants.NGHTTP2_HTTP_1_1_REQUIRED);
      }
      return;
    }
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

  #finished(exchange: HttpExchange, onConnection: Set<HttpExchange>): void {
    const { request } = exchange;
    onConnection.delete(exchange);
    this.#running.delete(exchange);
    if (this.#state !== 'draining') return;
    if (request instanceof IncomingMessage) {
      // The answer may still sit in the socket's buffer; idle connections are those where nothing is left to send.
      if (request.socket.writableLength === 0) this.#server.closeIdleConnections();
      else request.socket.destroySoon();
    }
    if (this.#running.size === 0) this.#whenIdle?.();
  }

  /**
   * The socket was silent for the idle time, or its bytes have waited while this process did not come to read them: a
   * timer that is due goes before what can be read. So what is there is read first.
   */
  #idle(socket: Socket): void {
    const { bytesRead, writableLength } = socket;
    setImmediate(() => {
      if (socket.destroyed) return;
      const silent = socket.bytesRead === bytesRead && socket.writableLength === writableLength;
      if (silent) this.#judgeSilence(socket);
      socket.setTimeout(this.#options.limits.idleTimeoutMs);
    });
  }

  /** Not the client's fault while git is at work for it. */
  #judgeSilence(socket: Socket): void {
    const onSocket = this.#exchanges.get(socket);
    if (onSocket === undefined || onSocket.size === 0) {
      socket.destroy();
      return;
    }
    for (const exchange of onSocket) this.#silent(exchange);
  }

  #silent(exchange: HttpExchange): void {
    if (!exchange.waitsForClient) return;
    exchange.stop(new HttpRefusal(408, 'The client was silent for too long.'));
    if (exchange.response.headersSent) breakOff(exchange.request);
  }

  #endOverdue(): void {
    const startedBeforeMs =
      this.#options.clock.monotonicMs() - this.#options.limits.requestTimeoutMs;
    for (const exchange of this.#running) {
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
    const reply = malformedReply(error.code ?? '');
    const [status, sentence] = reply ?? ['400 Bad Request', 'The connection broke.'];
    for (const exchange of running) {
      exchange.stop(new HttpRefusal(Number(status.slice(0, 3)), sentence));
    }
    if (socket.writable && !answered && reply !== undefined) {
      socket.end(rawReply(status, sentence, ''));
    } else {
      socket.destroy();
    }
  }
}
