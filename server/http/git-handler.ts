import type { OutgoingHttpHeaders } from 'node:http';
import { Readable, type Writable } from 'node:stream';
import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import { asQuorateError, type ErrorCode, QuorateError } from '../../backends/contract/errors.js';
import { withinPushHeader } from '../../backends/contract/within-push.js';
import { principalName } from '../auth/principal.js';
import type {
  Foreseen,
  Foresight,
  GitExchange,
  GitOutcome,
  GitRequest,
  GitService,
} from '../core/git-request.js';
import { maxKnownRequestBytes } from '../core/known-answers.js';
import type { RefusalLog } from '../observe/refusal-log.js';
import { parseGitProtocol } from '../wire/git-protocol.js';
import { writeErrorPkt } from '../wire/pkt-line.js';
import type { HttpAuthenticator } from './authenticator.js';
import { HttpRefusal, refusalOf } from './error-map.js';
import { GitReply } from './git-reply.js';
import type { HttpExchange } from './http-exchange.js';
import type { HttpLimits } from './http-limits.js';
import {
  announcesBody,
  breakOff,
  type HttpRequest,
  type HttpResponse,
  isGone,
  refuseRest,
  writeHead,
} from './http-message.js';
import { checkBody, drainRequest, RequestBody, takeWhole } from './request-body.js';
import type { Route } from './route.js';
import { noCacheHeaders, replyBody, replyRefusal, replyText } from './text-reply.js';

export interface GitHandlerOptions {
  readonly service: GitService;
  readonly authenticator: HttpAuthenticator;
  readonly refusals: RefusalLog;
  readonly limits: HttpLimits;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly clock: Clock;
  /** Where clients reach this listener, when it is not what their Host header says. */
  readonly publicUrl?: string | undefined;
  /** Set when clients come over TLS. */
  readonly tls?: object | undefined;
}

type GitRoute = Exclude<Route, { kind: 'api' }>;

interface Served {
  readonly outcome: GitOutcome['status'];
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Translates Git's HTTP requests into `GitRequest`s and their outcome into HTTP. */
export class GitHandler {
  readonly #options: GitHandlerOptions;

  constructor(options: GitHandlerOptions) {
    this.#options = options;
  }

  /** Serves one request to its end and logs it. Never rejects. */
  async serve(exchange: HttpExchange, route: GitRoute): Promise<void> {
    let served: Served;
    try {
      served = await this.#answer(exchange, route);
    } catch (error) {
      served = await this.#fail(exchange, route, error);
    }
    this.#log(exchange, route, served);
  }

  async #answer(exchange: HttpExchange, route: GitRoute): Promise<Served> {
    checkForm(exchange, route, this.#options.limits);
    const { request, remoteAddress, requestId } = exchange;
    const { authorization } = request.headers;
    const about = askedBy(request, route);
    let foresight: Foresight | undefined;
    exchange.principal = await this.#options.authenticator.authenticate({
      authorization,
      remoteAddress,
      requestId,
      service: about.service,
      meanwhile: () => {
        foresight = this.#options.service.foresee?.(about);
      },
    });
    return await (route.kind === 'page'
      ? this.#page(exchange, route, foresight)
      : this.#talk(exchange, route, foresight));
  }

  async #talk(
    exchange: HttpExchange,
    route: Exclude<GitRoute, { kind: 'page' }>,
    foresight: Foresight | undefined,
  ): Promise<Served> {
    const { request, response } = exchange;
    const headers: OutgoingHttpHeaders = {
      'Content-Type': `application/x-${route.service}-${route.kind === 'advertise' ? 'advertisement' : 'result'}`,
      'X-Request-Id': exchange.requestId,
      ...noCacheHeaders,
    };
    const opened = await this.#open(exchange, route, {
      foresight,
      onGeneration: (generation) => {
        headers[generationHeader] = generation;
      },
      onRecalled: (lostForMs) => {
        headers[lostHeader] = Math.ceil(lostForMs / 1000);
      },
    });
    if (request.headers.expect !== undefined) response.writeContinue();
    const taken = mayBeKnown(route) ? takeWhole(request, maxKnownRequestBytes) : undefined;
    const answer = taken === undefined ? undefined : await opened.known(taken);
    if (taken !== undefined && answer !== undefined && exchange.stopped === undefined) {
      exchange.takenBytes = taken.length;
      exchange.givenBytes = answer.text.length;
      await replyAtOnce(response, headers, answer.text);
      return { outcome: answer.outcome.status, fields: answer.outcome.fields };
    }
    const body =
      route.kind === 'rpc'
        ? new RequestBody(request, maxBodyBytes(route, this.#options.limits), taken)
        : undefined;
    exchange.body = body;
    const reply = new GitReply(response, headers);
    exchange.reply = reply;
    if (exchange.stopped !== undefined) throw exchange.stopped;
    const outcome = await opened.run(body ?? Readable.from([]), reply);
    // A body that was refused (too large, not gzip) is an HTTP error, however the service took the failing stream.
    if (body?.errored instanceof HttpRefusal && !reply.started) throw body.errored;
    await ended(reply);
    if (exchange.stopped !== undefined) throw stoppedAfter(exchange.stopped, route, reply);
    if (body !== undefined && !request.readableEnded) await this.#takeRest(exchange);
    return { outcome: outcome.status, fields: outcome.fields };
  }

  /** A person's browser: what to type instead. Says no more than a clone would. */
  async #page(
    exchange: HttpExchange,
    route: GitRoute & { kind: 'page' },
    foresight: Foresight | undefined,
  ): Promise<Served> {
    await this.#open(exchange, route, { foresight });
    const { request, response } = exchange;
    const origin = this.#options.publicUrl?.replace(/\/+$/, '') ?? this.#originOf(request);
    const url = `${origin}${encodeURI(route.path.replace(/\/+$/, ''))}`;
    await replyText(request, response, {
      status: 200,
      text: `This is a Git repository. To get a copy of it:\n\n    git clone ${url}`,
    });
    return { outcome: 'ok', fields: {} };
  }

  /** As the client calls us; HTTP/2 says it in `:authority`. */
  #originOf({ headers }: HttpRequest): string {
    const authority = headers[':authority'];
    const host = typeof authority === 'string' ? authority : (headers.host ?? '');
    const plain = /^(?:[A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d+)?$/i.test(host);
    const scheme = this.#options.tls === undefined ? 'http' : 'https';
    return `${scheme}://${plain ? host : 'SERVER'}`;
  }

  async #open(
    exchange: HttpExchange,
    route: GitRoute,
    further: Pick<GitRequest, 'foresight' | 'onGeneration' | 'onRecalled'>,
  ): Promise<GitExchange> {
    const { headers } = exchange.request;
    const { 'quorate-at-least': atLeast } = headers;
    const withinPush = headers[withinPushHeader.toLowerCase()];
    const gitRequest: GitRequest = {
      ...askedBy(exchange.request, route),
      requestId: exchange.requestId,
      principal: exchange.principal,
      transport: 'http',
      remoteAddress: exchange.remoteAddress,
      signal: exchange.signal,
      ...(typeof withinPush === 'string' ? { withinPush } : {}),
      ...(atLeast === undefined ? {} : { atLeast: parseGeneration(atLeast) }),
      ...further,
    };
    const opened = await this.#options.service.open(gitRequest);
    exchange.repositoryId = opened.repositoryId;
    return opened;
  }

  /** The answer is out, but git goes on sending until its body is over: take it, or git reports a broken pipe. */
  async #takeRest(exchange: HttpExchange): Promise<void> {
    exchange.body?.destroy();
    const drained = await drainRequest(exchange.request, {
      maxBytes: 1024 ** 3,
      timeoutMs: this.#options.limits.idleTimeoutMs,
      signal: exchange.signal,
    });
    if (!drained) refuseRest(exchange.request);
  }

  async #fail(exchange: HttpExchange, route: GitRoute, thrown: unknown): Promise<Served> {
    const { request, response, reply } = exchange;
    const isUnknown = thrown instanceof QuorateError && thrown.code === 'outcome-unknown';
    const error =
      (isUnknown ? thrown : exchange.stopped) ??
      (exchange.body?.errored instanceof HttpRefusal ? exchange.body.errored : thrown);
    const operating = error instanceof HttpRefusal ? undefined : asQuorateError(error);
    const refusal =
      error instanceof HttpRefusal ? error : refusalOf(asQuorateError(error), exchange.requestId);
    // What the service refused it has recorded itself.
    if (error instanceof HttpRefusal && limitStatuses.has(error.status)) {
      this.#recordLimit(exchange, error);
    }
    exchange.body?.destroy();
    const noVerdict = operating?.code === 'outcome-unknown';
    const told =
      exchange.stopped === undefined && operating !== undefined && isToldByGit(route, operating);
    let { status } = refusal;
    if (reply?.started === true || response.headersSent || isGone(response) || noVerdict) {
      // Part of a 200 is out, or what happened is not known: only a broken connection says neither yes nor no.
      breakOff(request);
    } else {
      reply?.destroy();
      if (told) status = 200;
      await (told ? replyErrorPacket(exchange, refusal.message) : replyRefusal(exchange, refusal));
    }
    if (operating?.code === 'internal') {
      this.#options.logger.error(
        { component: 'http', request_id: exchange.requestId, err: operating.cause ?? operating },
        'request failed',
      );
    }
    const outcome = refusal.status >= 500 ? 'error' : 'refused';
    return {
      outcome,
      fields: { status, error: operating?.code, reason: refusal.message },
    };
  }

  #recordLimit(exchange: HttpExchange, refusal: HttpRefusal): void {
    this.#options.refusals.record({
      event: 'limit',
      actor: principalName(exchange.principal),
      remoteAddress: exchange.remoteAddress,
      transport: 'http',
      requestId: exchange.requestId,
      details: { status: refusal.status, reason: refusal.message },
    });
  }

  #log(exchange: HttpExchange, route: GitRoute, served: Served): void {
    const { logger, meter, clock } = this.#options;
    const durationMs = clock.monotonicMs() - exchange.startedAtMs;
    const service = route.kind === 'page' ? 'page' : route.service;
    const labels = { transport: 'http', service };
    const { receivedBytes: bytesIn, sentBytes: bytesOut } = exchange;
    meter.count('requests', { ...labels, outcome: served.outcome });
    meter.observe('request_seconds', durationMs / 1000, labels);
    if (bytesIn > 0) meter.count('request_bytes', { ...labels, direction: 'in' }, bytesIn);
    if (bytesOut > 0) meter.count('request_bytes', { ...labels, direction: 'out' }, bytesOut);
    logger.info(
      {
        component: 'http',
        request_id: exchange.requestId,
        principal: principalName(exchange.principal),
        remote_address: exchange.remoteAddress,
        repo: exchange.repositoryId,
        path: route.path,
        service,
        step: route.kind,
        status: exchange.response.statusCode,
        outcome: served.outcome,
        bytes_in: bytesIn,
        bytes_out: bytesOut,
        duration_ms: Math.round(durationMs * 1000) / 1000,
        ...served.fields,
      },
      'request',
    );
  }
}

/** Which generation of the repository an answer shows, or a push made: what `Quorate-At-Least` may ask for later. */
const generationHeader = 'Quorate-Generation';

/** The answer comes from what was read before: for how many seconds the coordinator has not answered. */
const lostHeader = 'Quorate-Coordinator-Lost';

/** What a request says of itself, whoever sent it. */
function askedBy(
  { headers: { 'git-protocol': protocol } }: HttpRequest,
  route: GitRoute,
): Foreseen & Pick<GitRequest, 'path'> {
  return {
    service: serviceOf(route),
    path: route.path,
    protocol: parseGitProtocol(typeof protocol === 'string' ? protocol : undefined),
    mode: route.kind === 'rpc' ? 'stateless' : 'advertise',
  };
}

/** A page tells what a clone would. */
function serviceOf(route: GitRoute): GitRequest['service'] {
  return route.kind === 'page' ? 'git-upload-pack' : route.service;
}

function parseGeneration(value: string | string[]): number {
  const generation = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : NaN;
  if (Number.isSafeInteger(generation)) return generation;
  throw new HttpRefusal(400, 'Quorate-At-Least wants the number of a generation.');
}

/** Content too large, too many requests. */
const limitStatuses: ReadonlySet<number> = new Set([413, 429]);

/** What can be refused before anybody is asked: content type, encoding, announced length. */
function checkForm({ request }: HttpExchange, route: GitRoute, limits: HttpLimits): void {
  if (route.kind !== 'rpc') {
    if (!announcesBody(request)) return;
    throw new HttpRefusal(400, 'This request takes no body.');
  }
  const wanted = `application/x-${route.service}-request`;
  if (request.headers['content-type'] !== wanted) {
    throw new HttpRefusal(415, `The Content-Type of this request is ${wanted}.`);
  }
  checkBody(request, maxBodyBytes(route, limits));
}

function maxBodyBytes({ service }: GitRoute & { kind: 'rpc' }, limits: HttpLimits): number {
  return service === 'git-upload-pack' ? limits.maxFetchBodyBytes : limits.maxPushBodyBytes;
}

/** Requests whose answers the service may have ready. */
function mayBeKnown(route: GitRoute): boolean {
  return route.kind === 'rpc' && route.service === 'git-upload-pack';
}

/** What a person has to read to know what to do. A rate (429) and a missing right (401, 403, 404) are HTTP's to say. */
const toldCodes: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'unavailable',
  'deadline-exceeded',
  'failed-precondition',
  'storage-failure',
  'data-corrupt',
  'internal',
]);

/**
 * git shows the text of a `GET info/refs` that failed, and of a POST nothing but its status. So a fetch that fails is
 * told in git's own form, as refusals of the protocol are; a push has its report.
 */
function isToldByGit(route: GitRoute, { code }: QuorateError): boolean {
  return route.kind === 'rpc' && route.service === 'git-upload-pack' && toldCodes.has(code);
}

/** Resolves when the answer is handed over and the request is read or given up. */
function replyErrorPacket(
  { request, response, requestId }: HttpExchange,
  message: string,
): Promise<void> {
  return replyBody(request, response, {
    status: 200,
    body: writeErrorPkt(message),
    headers: { 'Content-Type': 'application/x-git-upload-pack-result', 'X-Request-Id': requestId },
  });
}

/** Resolves when the answer is handed to the system, or can no longer be. */
function replyAtOnce(
  response: HttpResponse,
  headers: OutgoingHttpHeaders,
  text: string,
): Promise<void> {
  if (isGone(response)) return Promise.resolve();
  return new Promise((resolve) => {
    const sink: Writable = response;
    sink.once('close', resolve);
    writeHead(response, 200, { ...headers, 'Content-Length': text.length });
    // As text, Node sends the header and the body in one piece; latin1 is the one encoding that keeps all bytes.
    sink.end(text, 'latin1');
  });
}

/** Resolves when the answer is handed to the system, or can no longer be. */
function ended(reply: GitReply): Promise<void> {
  if (reply.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    reply.once('close', () => resolve());
    reply.end();
  });
}

/** What is said of a request that was stopped when its answer was there: the report of a push was no refusal. */
function stoppedAfter(
  stopped: HttpRefusal | QuorateError,
  { service }: GitRoute & { readonly service: GitRequest['service'] },
  { sentBytes }: GitReply,
): HttpRefusal | QuorateError {
  if (service !== 'git-receive-pack' || sentBytes === 0) return stopped;
  return new QuorateError('outcome-unknown', 'the report of a push could not be sent', {
    cause: stopped,
  });
}

/** The reason that a client's leaving gives to everything that runs for it. */
export function clientLeft(): QuorateError {
  return new QuorateError('cancelled', 'The client closed the connection.');
}
