import { CliError } from './cli-error.js';
import type { ServerAddress } from './server-address.js';

/** The API answers in milliseconds; only a server in trouble takes longer. */
const requestTimeoutMs = 30_000;
/** The server says something every ten seconds while it works: this long a silence is a lost connection. */
const streamSilenceMs = 60_000;
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
}

export function createApiClient(server: ServerAddress): ApiClient {
  const send = async (
    method: Method,
    path: string,
    options: { readonly body?: Json | undefined; readonly signal: AbortSignal },
  ): Promise<Response> => {
    const { body, signal } = options;
    return await fetch(`${server.url}/api/v1${path}`, {
      method,
      signal,
      redirect: 'error',
      headers: {
        ...(server.token === undefined ? {} : { Authorization: `Bearer ${server.token}` }),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  };

  return {
    request: async (method, path, body) => {
      const signal = AbortSignal.timeout(requestTimeoutMs);
      try {
        const response = await send(method, path, { body, signal });
        const answer = asJson(await response.text());
        if (!response.ok) throw refusal(server, response, answer);
        return answer ?? notQuorate(server);
      } catch (error) {
        throw asCliError(server, error);
      }
    },
    stream: async (path, { body, signal, progress }) => {
      const silence = new AbortController();
      const timer = setTimeout(
        () => silence.abort(new DOMException('silent', 'TimeoutError')),
        streamSilenceMs,
      );
      try {
        const response = await send('POST', path, {
          body,
          signal: AbortSignal.any([signal, silence.signal]),
        });
        if (!response.ok) throw refusal(server, response, asJson(await response.text()));
        for await (const line of lines(response)) {
          timer.refresh();
          const event = asJson(line) ?? notQuorate(server);
          const result = event['result'];
          if (isJson(result)) return result;
          if ('error' in event) throw new CliError(messageIn(event) ?? 'the server failed');
          if (isJson(event['progress'])) progress(asProgress(event['progress']));
        }
        throw new CliError('the connection ended before the server was done; look at its log');
      } catch (error) {
        if (signal.aborted) throw new CliError('ended', { exitCode: 130 });
        throw asCliError(server, error);
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

async function* lines(response: Response): AsyncGenerator<string> {
  if (response.body === null) return;
  let rest = '';
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    if (rest.length > maxLineLength) throw new CliError('the server sent a line without end');
    yield* parts.filter((part) => part !== '');
  }
  if (rest !== '') yield rest;
}

function refusal(server: ServerAddress, response: Response, answer: Json | undefined): CliError {
  const message = answer === undefined ? undefined : messageIn(answer);
  if (message === undefined) {
    return new CliError(`${server.url} answered ${response.status}; is it a Quorate server?`);
  }
  if (response.status === 401) {
    return new CliError(
      server.token === undefined
        ? `no token: it is looked for in ${server.tokenPlace}`
        : `${message} (the token is from ${server.tokenPlace})`,
    );
  }
  const retryAfter = response.headers.get('retry-after');
  return new CliError(retryAfter === null ? message : `${message}; try again in ${retryAfter} s`);
}

function asCliError(server: ServerAddress, error: unknown): CliError {
  if (error instanceof CliError) return error;
  if (error instanceof Error && error.name === 'TimeoutError') {
    return new CliError(`the server at ${server.url} takes too long to answer`, { cause: error });
  }
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  const remedy =
    server.startCommand === undefined
      ? 'check QUORATE_URL'
      : `start it with "${server.startCommand}"`;
  const why = typeof code === 'string' ? (reasons[code] ?? code) : 'the connection broke';
  return new CliError(`the server at ${server.url} does not answer (${why}): ${remedy}`, {
    cause: error,
  });
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  ENOTFOUND: 'unknown host',
  EAI_AGAIN: 'unknown host',
  UND_ERR_SOCKET: 'the connection broke',
  UND_ERR_CONNECT_TIMEOUT: 'no connection in time',
};

function notQuorate(server: ServerAddress): never {
  throw new CliError(`${server.url} does not answer like a Quorate server`);
}

function messageIn(answer: Json): string | undefined {
  const error = answer['error'];
  const message = isJson(error) ? error['message'] : undefined;
  return typeof message === 'string' ? message : undefined;
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
