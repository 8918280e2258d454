import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { LockInfo } from '../../backends/contract/backend.js';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import type { Metrics } from './metrics.js';

/** One thing readiness depends on: resolves when it works, rejects with the reason when not. */
export type ReadinessCheck = () => Promise<void>;

export interface OpsServerOptions {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'expose' | 'contentType'>;
  /** The phase of the server's life; only `serving` is ready. */
  readonly phase: () => string;
  /** Name -> check. All must pass for `/readyz` to answer 200. */
  readonly checks: Readonly<Record<string, ReadinessCheck>>;
  /** Name -> what is not as it should be, and does not keep requests away. Shown by `/readyz`. */
  readonly warnings?: Readonly<Record<string, () => string | undefined>>;
  /** What is missing although requests should be sent here all the same. */
  readonly degraded?: () => string | undefined;
  readonly locks: () => Promise<readonly LockInfo[]>;
}

export interface OpsServer {
  /** Rejects when the address cannot be bound. Port 0 takes a free one. */
  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  close(): Promise<void>;
}

/** A probe that hangs is a failed probe; Kubernetes' default timeout is one second, so stay below it with most. */
const checkTimeoutMs = 2_000;
/** Scrapers and probes are few. More connections than this are a mistake or an attack. */
const maxConnections = 64;
/** One answer is a few hundred kilobytes at most; a peer that needs longer has gone. */
const requestTimeoutMs = 10_000;
const maxLocksShown = 10_000;

interface Reply {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/**
 * Health, readiness, metrics and debugging on an address of their own, which is not for the public: it has no
 * authentication. `/healthz` answers 200 while the process can answer at all (restarting does not mend a full disk);
 * `/readyz` answers 200 only while requests should be sent here.
 */
export function createOpsServer(options: OpsServerOptions): OpsServer {
  const routes: Readonly<Record<string, () => Promise<Reply>>> = {
    '/healthz': () => Promise.resolve(json(200, { status: 'ok', phase: options.phase() })),
    '/readyz': () => readiness(options),
    '/metrics': async () => ({
      status: 200,
      type: options.metrics.contentType,
      body: await options.metrics.expose(),
    }),
    '/debug/locks': async () => {
      const locks = await options.locks();
      return json(200, { count: locks.length, locks: locks.slice(0, maxLocksShown) });
    },
  };
  const server = createServer({
    requestTimeout: requestTimeoutMs,
    headersTimeout: requestTimeoutMs,
    keepAliveTimeout: requestTimeoutMs,
    connectionsCheckingInterval: 1_000,
    maxHeaderSize: 8 * 1024,
  });
  server.maxConnections = maxConnections;
  server.on('request', (request, response) => {
    void answer(routes, request, options.logger).then((reply) => send(request, response, reply));
  });
  return { listen: (host, port) => listen(server, host, port), close: () => close(server) };
}

async function answer(
  routes: Readonly<Record<string, () => Promise<Reply>>>,
  request: IncomingMessage,
  logger: Logger,
): Promise<Reply> {
  const path = (request.url ?? '').split('?', 1)[0] ?? '';
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (route === undefined) {
    const known = Object.keys(routes).join(' ');
    return text(404, `There is nothing here. This address answers ${known}\n`);
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return text(405, `${path} answers GET and HEAD\n`);
  }
  try {
    return await route();
  } catch (error) {
    logger.warn({ component: 'ops', path, err: error }, 'operations request failed');
    return text(503, `${path} cannot be answered now\n`);
  }
}

async function readiness(options: OpsServerOptions): Promise<Reply> {
  const phase = options.phase();
  if (phase !== 'serving') {
    return json(503, { status: 'not ready', phase, ...warningsOf(options) });
  }
  const entries = await Promise.all(
    Object.entries(options.checks).map(async ([name, check]): Promise<[string, string]> => [
      name,
      await verdict(check, options.clock),
    ]),
  );
  const ready = entries.every(([, result]) => result === 'ok');
  const degraded = options.degraded?.();
  const status = degraded === undefined ? 'ready' : 'degraded';
  return json(ready ? 200 : 503, {
    status: ready ? status : 'not ready',
    ...(degraded === undefined ? {} : { degraded }),
    phase,
    checks: Object.fromEntries(entries),
    ...warningsOf(options),
  });
}

function warningsOf({ warnings = {} }: OpsServerOptions): object {
  const entries = Object.entries(warnings).flatMap(([name, read]) => {
    const warning = read();
    return warning === undefined ? [] : [[name, warning] as const];
  });
  return entries.length === 0 ? {} : { warnings: Object.fromEntries(entries) };
}

async function verdict(check: ReadinessCheck, clock: Clock): Promise<string> {
  const done = new AbortController();
  const late = clock.sleep(checkTimeoutMs, done.signal).then(() => 'no answer in time');
  const result = check().then(
    () => 'ok',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
  try {
    return await Promise.race([result, late]);
  } finally {
    done.abort();
  }
}

function json(status: number, value: unknown): Reply {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n` };
}

function text(status: number, body: string): Reply {
  return { status, type: 'text/plain; charset=utf-8', body };
}

function send(request: IncomingMessage, response: ServerResponse, reply: Reply): void {
  const hasBody =
    request.headers['content-length'] !== undefined || 'transfer-encoding' in request.headers;
  response.writeHead(reply.status, {
    'Content-Type': reply.type,
    'Content-Length': Buffer.byteLength(reply.body),
    'Cache-Control': 'no-store',
    // A body that nobody reads must not hold the connection.
    ...(hasBody ? { Connection: 'close' } : {}),
    ...(reply.status === 405 ? { Allow: 'GET, HEAD' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : reply.body);
}

function listen(
  server: Server,
  host: string,
  port: number,
): Promise<{ readonly host: string; readonly port: number }> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      const bound = server.address();
      assert.ok(bound !== null && typeof bound === 'object', 'a TCP server has an address');
      resolve({ host: bound.address, port: bound.port });
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
