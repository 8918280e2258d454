import type { ErrorRequestHandler, Request, RequestHandler, Response } from 'express';
import { QuorateError } from '../../backends/contract/errors.js';
import { type Principal, principalName } from '../auth/principal.js';
import type { AdminApiOptions } from './admin-api.js';
import { authenticate } from './authenticate.js';
import { readBody } from './body.js';
import type { Call, Endpoint } from './endpoint.js';
import { mapError, type MappedError } from './error-map.js';
import { createEventStream } from './event-stream.js';
import { requireSomebody } from './permissions.js';

type DispatchOptions = Pick<
  AdminApiOptions,
  'accounts' | 'audit' | 'logger' | 'meter' | 'clock' | 'random' | 'noAuth'
>;

export interface Dispatcher {
  /** The whole life of a request to one endpoint: authenticate, read, run, answer, log, count, audit. */
  serve(endpoint: Endpoint): RequestHandler;
  /** Answers what no endpoint took. */
  readonly refuse: ErrorRequestHandler;
}

/** What is known of a request so far, for the answer, the log line and the audit event. */
interface Exchange {
  readonly request: Request;
  readonly response: Response;
  readonly requestId: string;
  readonly startedMs: number;
  readonly remoteAddress: string;
  readonly action: string;
  readonly facts: Record<string, unknown>;
  principal: Principal;
  repository: string | undefined;
}

export function createDispatcher(options: DispatchOptions): Dispatcher {
  const logger = options.logger.child({ component: 'admin' });

  const open = (request: Request, response: Response, action: string): Exchange => {
    const given = response.getHeader('X-Request-Id');
    const requestId =
      typeof given === 'string' ? given : Buffer.from(options.random.bytes(8)).toString('hex');
    response.setHeader('X-Request-Id', requestId);
    response.setHeader('Cache-Control', 'no-store');
    response.setHeader('X-Content-Type-Options', 'nosniff');
    return {
      request,
      response,
      requestId,
      startedMs: options.clock.monotonicMs(),
      remoteAddress: request.socket.remoteAddress ?? '',
      action,
      facts: {},
      principal: { kind: 'anonymous' },
      repository: undefined,
    };
  };

  const close = (exchange: Exchange, failure: MappedError | undefined): void => {
    const seconds = (options.clock.monotonicMs() - exchange.startedMs) / 1000;
    const outcome = failure?.outcome ?? 'ok';
    const labels = { transport: 'http', service: 'admin' };
    options.meter.count('requests', { ...labels, outcome });
    options.meter.observe('request_seconds', seconds, labels);
    const fields = {
      request_id: exchange.requestId,
      principal: principalName(exchange.principal),
      repo: exchange.repository,
      action: exchange.action,
      remote_address: exchange.remoteAddress,
      status: exchange.response.statusCode,
      duration_ms: Math.round(seconds * 1000),
      ...(failure === undefined ? {} : { code: failure.cause.code }),
    };
    if (failure?.outcome === 'error') logger.error({ ...fields, err: failure.cause }, 'admin request failed');
    else logger.info(fields, 'admin request');
  };

  const fail = async (exchange: Exchange, error: unknown, call?: Call): Promise<MappedError> => {
    const mapped = mapError(error, exchange.requestId);
    const { response } = exchange;
    if (call?.events.started === true) {
      await call.events.end(mapped.body);
    } else if (!response.headersSent && !response.destroyed) {
      response.set(mapped.headers);
      // What is left of a body that was not wanted is not worth reading: the connection ends with the answer.
      if (!exchange.request.complete) response.set('Connection', 'close');
      response.status(mapped.status).json(mapped.body);
    }
    return mapped;
  };

  const identify = async (exchange: Exchange): Promise<void> => {
    const header = exchange.request.headers.authorization;
    if (options.noAuth) exchange.principal = { kind: 'trusted' };
    else if (header !== undefined) {
      try {
        exchange.principal = await authenticate(options.accounts, header);
        countAuthentication(exchange, 'ok');
      } catch (error) {
        countAuthentication(exchange, 'refused');
        throw error;
      }
    }
  };

  const countAuthentication = (exchange: Exchange, outcome: 'ok' | 'refused'): void => {
    options.meter.count('authentications', { transport: 'http', outcome });
    const { principal } = exchange;
    const via = principal.kind === 'user' && principal.via.type === 'token' ? principal.via : undefined;
    options.audit.record({
      event: 'authentication',
      outcome,
      actor: principalName(principal),
      remoteAddress: exchange.remoteAddress,
      transport: 'admin',
      requestId: exchange.requestId,
      details: via === undefined ? { method: 'token' } : { method: 'token', tokenId: via.tokenId },
    });
  };

  const auditAction = (exchange: Exchange, failure: MappedError | undefined): void => {
    if (exchange.request.method === 'GET' || exchange.request.method === 'HEAD') return;
    options.audit.record({
      event: 'admin',
      outcome: failure?.outcome ?? 'ok',
      actor: principalName(exchange.principal),
      remoteAddress: exchange.remoteAddress,
      transport: 'admin',
      requestId: exchange.requestId,
      ...(exchange.repository === undefined ? {} : { repository: exchange.repository }),
      details: {
        action: exchange.action,
        ...exchange.facts,
        ...(failure === undefined ? {} : { code: failure.cause.code }),
      },
    });
  };

  return {
    serve: (endpoint) => async (request, response) => {
      const exchange = open(request, response, endpoint.action);
      const call = createCall(exchange, options);
      let failure: MappedError | undefined;
      try {
        await identify(exchange);
        const reading = endpoint.method === 'get';
        if (!reading) {
          refuseBrowsers(request);
          requireSomebody(exchange.principal);
        }
        const input: unknown = reading ? request.query : await readBody(exchange, options.clock);
        const reply = await endpoint.handle(call, input);
        if (reply !== undefined) response.status(reply.status).json(reply.body);
      } catch (error) {
        failure = await fail(exchange, error, call);
      }
      auditAction(exchange, failure);
      close(exchange, failure);
    },
    refuse: async (error, request, response, _next) => {
      const exchange = open(request, response, 'none');
      close(exchange, await fail(exchange, error));
    },
  };
}

function createCall(exchange: Exchange, options: DispatchOptions): Call {
  const { request, response } = exchange;
  const gone = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) gone.abort(new QuorateError('cancelled', 'the client left'));
  });
  Object.assign(exchange.facts, request.params);
  return {
    get principal() {
      return exchange.principal;
    },
    requestId: exchange.requestId,
    signal: gone.signal,
    param: (name) => {
      const value = request.params[name];
      if (typeof value !== 'string') throw new Error(`route without parameter ${name}`);
      return value;
    },
    note: (facts) => void Object.assign(exchange.facts, facts),
    noteRepository: (name) => {
      exchange.repository = name;
    },
    events: createEventStream({ response, clock: options.clock, signal: gone.signal }),
  };
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
