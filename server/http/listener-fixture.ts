/** A listener over real sockets with a fake service behind it, for this folder's tests. */
import { randomBytes } from 'node:crypto';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { pickPort } from '../../backends/contract/testing/ports.js';
import type { Accounts } from '../auth/accounts.js';
import type { GitOutcome, GitRequest, GitService, KnownAnswer } from '../core/git-request.js';
import type { AuditEvent } from '../observe/audit.js';
import type { CertificateSource } from './certificate.js';
import {
  createHttpListener,
  type HttpListener,
  type HttpListenerOptions,
} from './http-listener.js';
import { defaultHttpLimits, type HttpLimits } from './http-limits.js';

export const ok: GitOutcome = { status: 'ok', exitCode: 0, fields: {} };

export type Run = (input: Readable, output: Writable, request: GitRequest) => Promise<GitOutcome>;

export interface Fixture {
  readonly port: number;
  readonly listener: HttpListener;
  readonly requests: GitRequest[];
  readonly lines: { readonly fields: Record<string, unknown>; readonly message: string }[];
  readonly audited: AuditEvent[];
  readonly counts: string[];
  /** Exchanges that the service runs now. */
  readonly running: () => number;
  /** Connections that the listener has, as its metric tells. */
  readonly connections: () => number;
  close(): Promise<void>;
}

interface FixtureOptions {
  readonly limits?: Partial<HttpLimits>;
  readonly noAuth?: boolean;
  readonly open?: (request: GitRequest) => Promise<void> | void;
  readonly foresee?: NonNullable<GitService['foresee']>;
  readonly run?: Run;
  /** What the service has ready for a request. */
  readonly known?: (request: Buffer) => KnownAnswer | undefined;
  readonly adminApi?: HttpListenerOptions['adminApi'];
  readonly clock?: Clock;
  readonly tls?: CertificateSource;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms).unref();
      signal?.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
      });
    }),
};

/** Starts a listener on a port that nobody else has when it is closed. User `ann` has the token `good-token`. */
export async function startListener(options: FixtureOptions = {}): Promise<Fixture> {
  const requests: GitRequest[] = [];
  const lines: Fixture['lines'] = [];
  const audited: AuditEvent[] = [];
  const counts: string[] = [];
  let running = 0;
  let connections: (() => number) | undefined;
  const meter: Meter = {
    count: (name, labels = {}) => void counts.push(`${name} ${Object.values(labels).join(' ')}`),
    observe: () => {},
    gauge: (name, _labels, read) => {
      if (name === 'connections') connections = read;
    },
  };
  const run = options.run ?? echo;
  const service: GitService = {
    ...(options.foresee === undefined ? {} : { foresee: options.foresee }),
    async open(request) {
      requests.push(request);
      await options.open?.(request);
      return {
        repositoryId: 'the-id',
        known: (bytes) => Promise.resolve(options.known?.(bytes)),
        async run(input, output) {
          running += 1;
          try {
            return await run(input, output, request);
          } finally {
            running -= 1;
          }
        },
      };
    },
  };
  const listener = createHttpListener({
    service,
    accounts: fakeAccounts,
    audit: {
      record: (event) => void audited.push(event),
      flush: () => Promise.resolve(),
      close: () => Promise.resolve(),
    },
    adminApi: options.adminApi ?? ((_request, response) => response.writeHead(404).end()),
    logger: memoryLogger(lines),
    meter,
    clock: options.clock ?? systemClock,
    random: { bytes: (length) => randomBytes(length) },
    limits: { ...defaultHttpLimits, ...options.limits },
    noAuth: options.noAuth ?? false,
    tls: options.tls,
  });
  const { port } = await listener.listen('127.0.0.1', await pickPort());
  return {
    port,
    listener,
    requests,
    lines,
    audited,
    counts,
    running: () => running,
    connections: () => connections?.() ?? 0,
    close: () => listener.drain(0),
  };
}

/** Answers with what it was sent. */
export const echo: Run = async (input, output) => {
  const parts: Buffer[] = [];
  for await (const chunk of input) parts.push(Buffer.from(chunk));
  output.write(Buffer.concat([Buffer.from('got:'), ...parts]));
  return ok;
};

function absent(): Promise<never> {
  return Promise.reject(new QuorateError('internal', 'not part of this fixture'));
}

const fakeAccounts: Accounts = {
  createUser: absent,
  listUsers: absent,
  getUser: absent,
  setUserDisabled: absent,
  addKey: absent,
  listKeys: absent,
  removeKey: absent,
  certifiedUser: absent,
  addDeployKey: absent,
  listDeployKeys: absent,
  removeDeployKey: absent,
  createToken: absent,
  listTokens: absent,
  revokeToken: absent,
  authenticateKey: absent,
  authenticateToken: (secret) =>
    Promise.resolve(
      secret === 'good-token'
        ? {
            kind: 'user',
            name: 'ann',
            admin: false,
            canCreate: true,
            via: { type: 'token', tokenId: 't1', scope: 'write', repositoryPattern: undefined },
          }
        : undefined,
    ),
};

function memoryLogger(lines: Fixture['lines']): Logger {
  const add = (fields: object, message: string): void => {
    lines.push({ fields: { ...fields }, message });
  };
  const logger: Logger = { debug: add, info: add, warn: add, error: add, child: () => logger };
  return logger;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly continued: boolean;
}

export interface Ask {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Record<string, string | number>;
  readonly body?: Buffer | string;
}

/** One request on a connection of its own. With `Expect`, the body is sent only after 100 Continue. */
export function ask(port: number, what: Ask): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let continued = false;
    const request = httpRequest({
      host: '127.0.0.1',
      port,
      path: what.path,
      method: what.method ?? 'GET',
      headers: what.headers ?? {},
      agent: false,
    });
    request.on('error', reject);
    request.on('continue', () => {
      continued = true;
      request.end(what.body);
    });
    request.on('response', (response) => {
      const parts: Buffer[] = [];
      response.on('data', (chunk: Buffer) => parts.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        request.destroy();
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(parts),
          continued,
        });
      });
    });
    if (what.headers?.['Expect'] === undefined) request.end(what.body);
    else request.flushHeaders();
  });
}

export function pushTo(
  path: string,
  body: Buffer | string,
  headers: Record<string, string> = {},
): Ask {
  const service = path.slice(path.lastIndexOf('/') + 1);
  return {
    method: 'POST',
    path,
    body,
    headers: { 'Content-Type': `application/x-${service}-request`, ...headers },
  };
}

export const basic = (user: string, password: string): Record<string, string> => ({
  Authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
});

export interface RawConnection {
  readonly socket: Socket;
  /** Everything received so far. */
  received(): string;
  closed(): boolean;
}

/** A connection on which a test writes bytes of its own. Errors count as closed. */
export async function rawConnection(
  port: number,
  firstBytes: string | Buffer = '',
): Promise<RawConnection> {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  let closed = false;
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  socket.on('error', () => {});
  socket.on('close', () => (closed = true));
  await new Promise((resolve) => socket.once('connect', resolve));
  if (firstBytes.length > 0) socket.write(firstBytes);
  return { socket, received: () => text, closed: () => closed };
}

/** Reads a request's body and forgets it. */
export async function readAll(input: Readable): Promise<number> {
  let bytes = 0;
  for await (const chunk of input) bytes += Buffer.from(chunk).length;
  return bytes;
}

/** A promise that a test fulfils when it wants. */
export function deferred(): { readonly done: Promise<void>; readonly finish: () => void } {
  const later: { finish: () => void } = { finish: () => {} };
  const done = new Promise<void>((resolve) => {
    later.finish = resolve;
  });
  return { done, finish: () => later.finish() };
}
