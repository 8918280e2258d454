import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { ConnectionOptions } from 'node:tls';
import { CliError, ConnectionLost } from './cli-error.js';
import type { ServerAddress, ServerTrust } from './server-address.js';

/** The API answers in milliseconds; only a server in trouble takes longer. */
const requestTimeoutMs = 30_000;
/** The server says something every ten seconds while it works: this long a silence is a lost connection. */
const streamSilenceMs = 60_000;
/** A page of 1,000 repositories with long names is a megabyte. */
const maxAnswerLength = 64 * 1024 * 1024;
/** A line of a stream is some hundred bytes. */
const maxLineLength = 1024 * 1024;

export type Json = Readonly<Record<string, unknown>>;
type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface Progress {
  readonly step: string;
  readonly done: number;
  readonly total: number;
}

export interface StreamOptions {
  readonly body?: Json;
  readonly signal: AbortSignal;
  readonly progress: (progress: Progress) => void;
}

/** The admin API, as commands use it. Every failure is a CliError that says what to do. */
export interface ApiClient {
  readonly request: (method: Method, path: string, body?: Json) => Promise<Json>;
  /** A long-running request: tells progress, answers the result. Ends on the server when `signal` aborts. */
  readonly stream: (path: string, options: StreamOptions) => Promise<Json>;
  /**
   * Hands each line of an answer without an end to `told`, until `signal` aborts. Rejects with `ConnectionLost` when
   * the server ends it, or cannot be reached.
   */
  readonly follow: (
    path: string,
    options: { readonly signal: AbortSignal; readonly told: (line: Json) => void },
  ) => Promise<void>;
}

export function createApiClient(server: ServerAddress): ApiClient {
  const send = async (
    method: Method,
    path: string,
    options: { readonly body?: Json | undefined; readonly signal: AbortSignal },
  ): Promise<IncomingMessage> => {
    const { body, signal } = options;
    const content = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    return await sendRequest(new URL(`${server.url}/api/v1${path}`), {
      method,
      trust: server.trust,
      signal,
      headers: {
        ...(server.token === undefined ? {} : { Authorization: `Bearer ${server.token}` }),
        ...(content === undefined ? {} : { 'Content-Type': 'application/json' }),
        'Content-Length': content?.length ?? 0,
      },
      content,
    });
  };

  return {
    follow: async (path, { signal, told }) => {
      const silence = new AbortController();
      const timer = setTimeout(() => silence.abort(), streamSilenceMs);
      const ended = AbortSignal.any([signal, silence.signal]);
      try {
        const response = await send('GET', path, { signal: ended });
        if (!isOk(response)) throw refusal(server, response, asJson(await textOf(response)));
        for await (const line of lines(response)) {
          timer.refresh();
          const event = asJson(line) ?? notQuorate(server);
          if ('error' in event)
            throw new CliError(messageIn(event['error']) ?? 'the server failed');
          told(event);
        }
        throw new ConnectionLost(`the server at ${server.url} ended the connection`);
      } catch (error) {
        if (!signal.aborted) throw asCliError(server, error, ended);
      } finally {
        clearTimeout(timer);
      }
    },
    request: async (method, path, body) => {
      const signal = AbortSignal.timeout(requestTimeoutMs);
      try {
        const response = await send(method, path, { body, signal });
        const answer = asJson(await textOf(response));
        if (!isOk(response)) throw refusal(server, response, answer);
        return answer ?? notQuorate(server);
      } catch (error) {
        throw asCliError(server, error, signal);
      }
    },
    stream: async (path, { body, signal, progress }) => {
      const silence = new AbortController();
      const timer = setTimeout(() => silence.abort(), streamSilenceMs);
      const ended = AbortSignal.any([signal, silence.signal]);
      try {
        const response = await send('POST', path, { body, signal: ended });
        if (!isOk(response)) throw refusal(server, response, asJson(await textOf(response)));
        for await (const line of lines(response)) {
          timer.refresh();
          const event = asJson(line) ?? notQuorate(server);
          const result = event['result'];
          if (isJson(result)) return result;
          if ('error' in event)
            throw new CliError(messageIn(event['error']) ?? 'the server failed');
          if (isJson(event['progress'])) progress(asProgress(event['progress']));
        }
        throw new CliError('the connection ended before the server was done; look at its log');
      } catch (error) {
        if (signal.aborted) throw new CliError('ended', { exitCode: 130 });
        throw asCliError(server, error, ended);
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

/**
 * One request on a connection of its own. `node:http` and not `fetch`: loading that costs a command 90 ms, three
 * times what Node itself takes to start. Redirects are not followed: the token is for one server.
 */
async function sendRequest(
  url: URL,
  options: {
    readonly method: Method;
    readonly trust: ServerTrust;
    readonly headers: OutgoingHttpHeaders;
    readonly content: Buffer | undefined;
    readonly signal: AbortSignal;
  },
): Promise<IncomingMessage> {
  const { content, trust, ...plain } = options;
  const isSecure = url.protocol === 'https:';
  const { request } = await (isSecure ? import('node:https') : import('node:http'));
  const rest = isSecure ? { ...plain, ...(await tlsOptions(trust)) } : plain;
  return await new Promise((resolve, reject) => {
    const sent = request(url, { ...rest, agent: false }, resolve);
    sent.on('error', reject);
    sent.end(content);
  });
}

async function tlsOptions({ authorities, itself }: ServerTrust): Promise<ConnectionOptions> {
  if (itself !== undefined) {
    // Known by its very certificate: then the name in it says nothing more.
    return { ca: itself, allowPartialTrustChain: true, checkServerIdentity: () => undefined };
  }
  if (authorities === undefined) return {};
  const { rootCertificates } = await import('node:tls');
  return { ca: [...rootCertificates, authorities] };
}

function isOk({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode < 300;
}

async function textOf(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const chunk of response) {
    text += String(chunk);
    if (text.length > maxAnswerLength) throw new CliError('the server sent an answer without end');
  }
  return text;
}

async function* lines(response: IncomingMessage): AsyncGenerator<string> {
  response.setEncoding('utf8');
  let rest = '';
  for await (const chunk of response) {
    const parts = (rest + String(chunk)).split('\n');
    rest = parts.pop() ?? '';
    if (rest.length > maxLineLength) throw new CliError('the server sent a line without end');
    yield* parts.filter((part) => part !== '');
  }
  if (rest !== '') yield rest;
}

function refusal(
  server: ServerAddress,
  response: IncomingMessage,
  answer: Json | undefined,
): CliError {
  const message = messageIn(answer);
  if (message === undefined) {
    return new CliError(`${server.url} answered ${response.statusCode}; is it a Quorate server?`);
  }
  if (response.statusCode === 401) {
    return new CliError(
      server.token === undefined
        ? `no token: it is looked for in ${server.tokenPlace}`
        : `${message} (the token is from ${server.tokenPlace})`,
    );
  }
  const retryAfter = response.headers['retry-after'];
  if (retryAfter === undefined) return new CliError(message);
  const says = message.endsWith('try again') ? message : `${message}; try again`;
  return new CliError(`${says} in ${retryAfter} s`);
}

function asCliError(server: ServerAddress, error: unknown, signal: AbortSignal): CliError {
  if (error instanceof CliError) return error;
  if (signal.aborted) {
    return new ConnectionLost(`the server at ${server.url} takes too long to answer`, {
      cause: error,
    });
  }
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (typeof code === 'string' && /CERT|SIGNATURE|ISSUER/.test(code)) {
    return new CliError(
      `the certificate of ${server.url} is not trusted (${code}): name its authority with QUORATE_CA_FILE`,
      { cause: error },
    );
  }
  if (code === 'EPROTO') {
    return new CliError(`${server.url} does not speak TLS: write http:// in QUORATE_URL`, {
      cause: error,
    });
  }
  const remedy =
    server.startCommand === undefined
      ? 'check QUORATE_URL'
      : `start it with "${server.startCommand}"`;
  const why = typeof code === 'string' ? (reasons[code] ?? code) : 'the connection broke';
  return new ConnectionLost(`the server at ${server.url} does not answer (${why}): ${remedy}`, {
    cause: error,
  });
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  ENOTFOUND: 'unknown host',
  EAI_AGAIN: 'unknown host',
  HPE_INVALID_CONSTANT: 'it does not speak HTTP',
};

function notQuorate(server: ServerAddress): never {
  throw new CliError(`${server.url} does not answer like a Quorate server`);
}

/** The sentence of a problem (RFC 9457). */
function messageIn(problem: unknown): string | undefined {
  const detail = isJson(problem) ? problem['detail'] : undefined;
  return typeof detail === 'string' ? detail : undefined;
}

function asProgress(value: Json): Progress {
  const { step, done, total } = value;
  return { step: String(step), done: Number(done), total: Number(total) };
}

function asJson(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isJson(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
