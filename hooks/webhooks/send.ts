import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { lookup, type LookupAddress } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import type { Clock } from '../../backends/contract/environment.js';
import type { Attempt, AttemptOutcome } from './delivery.js';
import type { Targets } from './targets.js';

/** Of an answer's body: the rest is not read. */
const maxResponseBytes = 1024;
/** Of an answer's status line and headers. */
const maxHeaderBytes = 16 * 1024;

/** Finds the addresses of a host name, all of them. Asks back once. */
export type Resolve = (
  hostname: string,
  found: (error: Error | null, addresses: readonly LookupAddress[]) => void,
) => void;

export interface SenderParts {
  readonly targets: Targets;
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** Default: the system's resolver. */
  readonly resolve?: Resolve;
}

export interface Sending {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  readonly signal: AbortSignal;
}

/** How far a request came, which says whose trouble it is that it failed. */
type Phase = 'dns' | 'connection' | 'tls' | 'exchange';

/** Sends one request and says how it ended. Never rejects. Undefined when the signal ended it. */
export type Sender = (sending: Sending) => Promise<Attempt | undefined>;

/**
 * POSTs to places that users name. The address is judged after the name was resolved, and it is the judged address that
 * is connected to. Nothing is followed, no proxy is used, no connection is kept; time and bytes are bounded.
 */
export function createSender(parts: SenderParts): Sender {
  return async (sending) => {
    const { clock, timeoutMs } = parts;
    const atMs = clock.nowMs();
    const startedMs = clock.monotonicMs();
    const over = new AbortController();
    const stop = (): void => over.abort();
    sending.signal.addEventListener('abort', stop, { once: true });
    if (sending.signal.aborted) stop();
    const done = new AbortController();
    let late = false;
    const watch = async (): Promise<void> => {
      await clock.sleep(timeoutMs, done.signal);
      if (done.signal.aborted) return;
      late = true;
      stop();
    };
    const watching = watch();
    const exchange = new Exchange(parts, sending, over.signal);
    const end = await exchange.run(() => late);
    done.abort();
    await watching;
    sending.signal.removeEventListener('abort', stop);
    if (end === undefined) return undefined;
    return { atMs, durationMs: Math.round(clock.monotonicMs() - startedMs), ...end };
  };
}

type End = Omit<Attempt, 'atMs' | 'durationMs'>;

class Exchange {
  readonly #parts: SenderParts;
  readonly #sending: Sending;
  readonly #signal: AbortSignal;
  #phase: Phase = 'dns';

  constructor(parts: SenderParts, sending: Sending, signal: AbortSignal) {
    this.#parts = parts;
    this.#sending = sending;
    this.#signal = signal;
  }

  async run(late: () => boolean): Promise<End | undefined> {
    const { timeoutMs } = this.#parts;
    let outgoing: ClientRequest | undefined;
    try {
      outgoing = this.#open();
      const response = await responseTo(outgoing);
      return endOf(response.statusCode ?? 0, await beginningOf(response));
    } catch (error) {
      if (late()) {
        return { outcome: 'timeout', problem: `no answer within ${timeoutMs / 1000} seconds` };
      }
      return this.#signal.aborted ? undefined : problemOf(error, this.#phase);
    } finally {
      outgoing?.destroy();
    }
  }

  /** Throws `Forbidden` for an address that is written in the URL itself: such are never looked up. */
  #open(): ClientRequest {
    const { url: text, headers, body } = this.#sending;
    const url = new URL(text);
    const host = url.hostname.replaceAll(/[[\]]/g, '');
    if (isIP(host) !== 0 && !this.#parts.targets.permits(host)) throw new Forbidden();
    const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const outgoing = request(url, {
      method: 'POST',
      headers: { ...headers, 'Content-Length': body.length },
      agent: false,
      lookup: this.#lookup,
      maxHeaderSize: maxHeaderBytes,
      signal: this.#signal,
    });
    outgoing.once('socket', (socket) => {
      if (isIP(host) !== 0) this.#phase = 'connection';
      socket.once('connect', () => {
        this.#phase = url.protocol === 'https:' ? 'tls' : 'exchange';
      });
      socket.once('secureConnect', () => {
        this.#phase = 'exchange';
      });
    });
    outgoing.end(body);
    return outgoing;
  }

  /** Hands over the addresses that are permitted, and no others: a second look at the name never happens. */
  readonly #lookup: LookupFunction = (hostname, options, callback) => {
    const { targets, resolve = systemResolve } = this.#parts;
    resolve(hostname, (error, found) => {
      const permitted = found.filter(({ address }) => targets.permits(address));
      const [first] = permitted;
      if (error === null) this.#phase = 'connection';
      if (error !== null) callback(error, '');
      else if (first === undefined) callback(new Forbidden(), '');
      else if (options.all === true) callback(null, permitted);
      else callback(null, first.address, first.family);
    });
  };
}

/** The address is none that deliveries may go to. */
class Forbidden extends Error {}

async function responseTo(outgoing: ClientRequest): Promise<IncomingMessage> {
  // What goes wrong after the answer is no news.
  outgoing.on('error', () => undefined);
  const response = new Promise<IncomingMessage>((resolve) => outgoing.once('response', resolve));
  // Rejects with the error of the request, whenever that comes first.
  const ended = once(outgoing, 'close').then(() => {
    throw new Error('the connection ended without an answer');
  });
  return await Promise.race([response, ended]);
}

/** The first bytes of the body as text. How it goes on, or breaks off, does not matter any more. */
async function beginningOf(response: IncomingMessage): Promise<string> {
  let bytes = Buffer.alloc(0);
  try {
    for await (const chunk of response) {
      bytes = Buffer.concat([bytes, Buffer.from(chunk)]);
      if (bytes.length >= maxResponseBytes) break;
    }
  } catch {
    // The status says all.
  }
  return bytes.subarray(0, maxResponseBytes).toString('utf8');
}

function endOf(status: number, response: string): End {
  const kept = { status, ...(response === '' ? {} : { response }) };
  if (status >= 200 && status < 300) return { outcome: 'delivered', ...kept };
  if (status >= 300 && status < 400) {
    return { outcome: 'redirect', ...kept, problem: 'redirects are not followed' };
  }
  return { outcome: 'status', ...kept, problem: `the receiver answered ${status}` };
}

const problems: Readonly<Record<Phase, readonly [AttemptOutcome, string]>> = {
  dns: ['dns', 'the host name cannot be resolved'],
  connection: ['connection', 'no connection to the receiver'],
  tls: ['tls', 'no trusted TLS connection to the receiver'],
  exchange: ['protocol', 'the receiver did not answer as HTTP wants it'],
};

function problemOf(error: unknown, phase: Phase): End {
  if (error instanceof Forbidden) {
    return {
      outcome: 'forbidden-address',
      problem: 'the address is not a public one (webhooks.allowedNetworks)',
    };
  }
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const [outcome, words] = problems[phase];
  // Codes are upper-case words of Node and OpenSSL.
  const detail = /^[A-Z0-9_]{1,60}$/.test(code) ? ` (${code})` : '';
  return { outcome, problem: `${words}${detail}` };
}

const systemResolve: Resolve = (hostname, found) => {
  lookup(hostname, { all: true, order: 'verbatim' }, (error, addresses) => {
    found(error, error === null ? addresses : []);
  });
};
