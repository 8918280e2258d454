import type { ErrorRequestHandler, Request, RequestHandler, Response } from 'express';
import type { Clock, Random } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { AdminApiOptions } from './options.js';
import { authenticate } from './authenticate.js';
import type { Refusal } from '../auth/sign-in-details.js';
import { readBody } from './body.js';
import type { Call, Endpoint, Reply } from './endpoint.js';
import { mapError, type MappedError, problemMediaType } from './error-map.js';
import { createEventStream } from './event-stream.js';
import { createExchangeRecorder, type Exchange, type ExchangeRecorder } from './exchange.js';
import { RepeatedRequests } from './idempotency.js';
import { requireSomebody } from './permissions.js';

type DispatchOptions = Pick<
  AdminApiOptions,
  | 'accounts'
  | 'localAdmin'
  | 'audit'
  | 'logger'
  | 'meter'
  | 'clock'
  | 'random'
  | 'rates'
  | 'requestRecords'
  | 'noAuth'
>;

export interface Dispatcher {
  /** The whole life of a request to one endpoint: authenticate, read, run, answer, log, count, audit. */
  serve(endpoint: Endpoint): RequestHandler;
  /** Answers what no endpoint took. */
  readonly refuse: ErrorRequestHandler;
}

export function createDispatcher(options: DispatchOptions): Dispatcher {
  const recorder = createExchangeRecorder(options);
  const repeated = new RepeatedRequests(options);
  return {
    serve: (endpoint) => async (request, response) => {
      const exchange = open(options, { request, response, action: endpoint.action });
      const call = createCall(exchange, options.clock);
      let failure: MappedError | undefined;
      try {
        await identify(exchange, { ...options, ...endpoint }, recorder);
        const input = await readInput(exchange, endpoint, options.clock);
        const reply = await replyTo(repeated, { endpoint, exchange, call, input });
        if (reply !== undefined) response.status(reply.status).json(reply.body);
      } catch (error) {
        failure = await answerError(exchange, error, call);
      }
      recorder.finished(exchange, failure);
    },
    refuse: async (error, request, response, _next) => {
      const exchange = open(options, { request, response, action: 'none' });
      recorder.finished(exchange, await answerError(exchange, error));
    },
  };
}

/** Runs the endpoint; a `POST` with an `Idempotency-Key` that came before gets the answer that it got then. */
async function replyTo(
  repeated: RepeatedRequests,
  of: {
    readonly endpoint: Endpoint;
    readonly exchange: Exchange;
    readonly call: Call;
    readonly input: unknown;
  },
): Promise<Reply | undefined> {
  const { endpoint, exchange, call, input } = of;
  const { request, principal } = exchange;
  const key = request.headers['idempotency-key'];
  if (endpoint.method !== 'post' || typeof key !== 'string') return endpoint.handle(call, input);
  const { requestId } = exchange;
  const about = { key, principal, path: request.path, input, requestId, secrets: endpoint.secrets };
  const answer = await repeated.once(about, () => endpoint.handle(call, input));
  if (answer.repeated) call.note({ repeated: true });
  return answer.reply;
}

function open(
  { random, clock }: { readonly random: Random; readonly clock: Clock },
  of: { readonly request: Request; readonly response: Response; readonly action: string },
): Exchange {
  const { request, response, action } = of;
  // The listener may have given the request its id already.
  const given = response.getHeader('X-Request-Id');
  const requestId =
    typeof given === 'string' ? given : Buffer.from(random.bytes(8)).toString('hex');
  response.setHeader('X-Request-Id', requestId);
  response.setHeader('Cache-Control', 'no-store');
  response.setHeader('X-Content-Type-Options', 'nosniff');
  return {
    request,
    response,
    requestId,
    startedMs: clock.monotonicMs(),
    remoteAddress: request.socket.remoteAddress ?? '',
    action,
    facts: { ...request.params },
    principal: { kind: 'anonymous' },
    repository: undefined,
  };
}

async function identify(
  exchange: Exchange,
  {
    noAuth,
    accounts,
    localAdmin,
    rates,
    withoutCoordinator,
  }: Pick<DispatchOptions, 'noAuth' | 'accounts' | 'localAdmin' | 'rates'> &
    Pick<Endpoint, 'withoutCoordinator'>,
  recorder: ExchangeRecorder,
): Promise<void> {
  const header = exchange.request.headers.authorization;
  rates.checkAddress(exchange.remoteAddress);
  if (noAuth) {
    exchange.principal = { kind: 'trusted' };
    return;
  }
  if (header === undefined) return;
  let refusal: Refusal = { problem: 'wrong token' };
  const onRefused = (told: Refusal): void => void (refusal = told);
  const how = withoutCoordinator ? { onRefused, reading: true, localAdmin } : { onRefused };
  try {
    exchange.principal = await authenticate(accounts, header, how);
    recorder.authenticated(exchange);
    rates.checkPrincipal(exchange.principal);
  } catch (error) {
    if (error instanceof QuorateError && error.code === 'unauthenticated') {
      recorder.authenticated(exchange, refusal);
    }
    throw error;
  }
}

async function readInput(exchange: Exchange, endpoint: Endpoint, clock: Clock): Promise<unknown> {
  if (endpoint.method === 'get') return exchange.request.query;
  // Before a byte of the body is read.
  refuseBrowsers(exchange.request);
  requireSomebody(exchange.principal);
  return await readBody({ ...exchange, large: endpoint.largeBody }, clock);
}

/**
 * No web page talks to this API, and a browser adds `Origin` to every cross-site change: refusing it keeps pages from
 * using credentials that the browser holds, or a server without authentication on loopback.
 */
function refuseBrowsers(request: Request): void {
  if (request.headers.origin !== undefined) {
    throw new QuorateError('permission-denied', 'changes are not accepted from web pages');
  }
}

async function answerError(exchange: Exchange, error: unknown, call?: Call): Promise<MappedError> {
  const mapped = mapError(error, exchange.requestId);
  const { request, response } = exchange;
  if (call?.events.started === true) {
    await call.events.end({ error: mapped.problem });
  } else if (!response.headersSent && !response.destroyed) {
    response.set(mapped.headers);
    // What is left of a body that was not wanted is not worth reading: the connection ends with the answer.
    if (!request.complete) response.set('Connection', 'close');
    response.status(mapped.status).type(problemMediaType).json(mapped.problem);
  }
  return mapped;
}

function createCall(exchange: Exchange, clock: Clock): Call {
  const { request, response } = exchange;
  const gone = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) gone.abort(new QuorateError('cancelled', 'the client left'));
  });
  return {
    get principal() {
      return exchange.principal;
    },
    requestId: exchange.requestId,
    signal: gone.signal,
    param: (name) => {
      const value = request.params[name];
      if (typeof value !== 'string') throw new Error(`the route has no parameter ${name}`);
      return value;
    },
    note: (facts) => void Object.assign(exchange.facts, facts),
    noteRepository: (name) => {
      exchange.repository = name;
    },
    events: createEventStream({ response, clock, signal: gone.signal }),
  };
}
