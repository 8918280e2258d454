import { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { createGunzip, type Gunzip } from 'node:zlib';
import { QuorateError } from '../../backends/contract/errors.js';
import { GatheredChunks } from '../core/gathered-chunks.js';
import { HttpRefusal } from './error-map.js';
import { type HttpRequest, isComplete } from './http-message.js';

/** Throws `HttpRefusal` 400, 413 or 415 for a body that need not be looked at. `maxBytes` 0: no limit. */
export function checkBody({ headers }: HttpRequest, maxBytes: number): void {
  const encoding = headers['content-encoding']?.toLowerCase() ?? 'identity';
  if (encoding !== 'identity' && encoding !== 'gzip' && encoding !== 'x-gzip') {
    throw new HttpRefusal(415, 'This Content-Encoding is not known: send gzip or none.', {
      'Accept-Encoding': 'gzip',
    });
  }
  const transfer = headers['transfer-encoding'];
  if (transfer !== undefined && transfer.toLowerCase() !== 'chunked') {
    throw new HttpRefusal(400, 'This Transfer-Encoding is not known: send chunked or none.');
  }
  const length = headers['content-length'];
  if (length !== undefined && Number(length) > boundOf(maxBytes)) throw tooLarge(maxBytes);
}

/**
 * The body of a usual small request, which came in one segment with its headers, so that all of it is here by now:
 * taken in one piece, without the events of a stream that flows. Undefined, with nothing taken, for any other.
 */
export function takeWhole(request: HttpRequest, maxBytes: number): Buffer | undefined {
  if (!(request instanceof IncomingMessage) || isEncoded(request)) return undefined;
  const length = request.headers['content-length'];
  if (length === undefined || Number(length) !== request.readableLength) return undefined;
  // To read from a request that has nothing has it tell its end, which whoever reads it later would wait for.
  if (request.readableLength === 0 || request.readableLength > maxBytes) return undefined;
  const chunk: unknown = request.read();
  if (!(chunk instanceof Buffer)) return undefined;
  // Nothing is left in it but its end, which Node has not told yet.
  request.resume();
  return chunk;
}

function isEncoded({ headers }: HttpRequest): boolean {
  const encoding = headers['content-encoding'];
  return encoding !== undefined && encoding.toLowerCase() !== 'identity';
}

function boundOf(maxBytes: number): number {
  return maxBytes === 0 ? Number.MAX_SAFE_INTEGER : maxBytes;
}

function tooLarge(maxBytes: number): HttpRefusal {
  return new HttpRefusal(413, `The request body is larger than ${maxBytes} bytes.`);
}

/**
 * The decoded body of a request, as a stream that the service reads at its own pace. Nothing is read from the client
 * before the service reads, and never more than the limit, counted both before and after decoding: a bomb is cut off
 * when the limit is passed, and so is an encoding that grows without yielding anything.
 * Fails with `HttpRefusal` (400, 413) or `cancelled`.
 */
export class RequestBody extends Readable {
  /** Bytes taken from the client so far, before decoding. */
  receivedBytes = 0;
  readonly #request: HttpRequest;
  /** The same, as a stream. */
  readonly #source: Readable;
  readonly #gunzip: Gunzip | undefined;
  readonly #maxBytes: number;
  readonly #taken: Buffer | undefined;
  readonly #gathered = new GatheredChunks((chunk) => this.#deliver(chunk, this.#source));
  #decodedBytes = 0;
  #started = false;
  #wanted = false;
  #hasAll = false;

  /** Of a request that `checkBody` let pass. `taken` is its body, when `takeWhole` took that. */
  constructor(request: HttpRequest, maxBytes: number, taken?: Buffer) {
    super({ highWaterMark: 64 * 1024 });
    this.#request = request;
    this.#source = request;
    this.#maxBytes = boundOf(maxBytes);
    this.#taken = taken;
    this.#gunzip = isEncoded(request) ? createGunzip() : undefined;
    // The error reaches whoever reads; without a reader it must not end the process.
    this.on('error', () => {});
  }

  /** True while the next step is the client's: the service waits for bytes that have not come. */
  get waitsForClient(): boolean {
    return this.#wanted && !isComplete(this.#request) && !this.#source.isPaused();
  }

  /** True when all of a body that came whole was read: its end is only still to be told. */
  get spent(): boolean {
    return this.#hasAll && this.readableLength === 0;
  }

  override _read(): void {
    this.#wanted = true;
    if (!this.#started) this.#start();
    else if (this.#gunzip === undefined) this.#source.resume();
    else this.#gunzip.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#wanted = false;
    this.#source.removeListener('data', this.#received);
    this.#source.removeListener('end', this.#receivedAll);
    this.#source.removeListener('close', this.#closed);
    if (this.#started) this.#source.pause();
    this.#gathered.drop();
    this.#gunzip?.removeAllListeners('data').destroy();
    done(error);
  }

  #start(): void {
    this.#started = true;
    const whole = this.#taken ?? takeWhole(this.#request, this.#maxBytes);
    if (whole !== undefined) {
      this.#wanted = false;
      this.#received(whole);
      this.#gathered.flush();
      if (this.destroyed) return;
      this.push(null);
      this.#hasAll = true;
      return;
    }
    const gunzip = this.#gunzip;
    if (gunzip !== undefined) {
      gunzip.on('data', (chunk: Buffer) => this.#deliver(chunk, gunzip));
      gunzip.on('end', () => this.push(null));
      gunzip.on('drain', () => this.#source.resume());
      gunzip.on('error', () => {
        this.destroy(new HttpRefusal(400, 'The request body is not valid gzip.'));
      });
    }
    this.#source.on('end', this.#receivedAll);
    this.#source.on('close', this.#closed);
    this.#source.on('data', this.#received);
  }

  readonly #received = (chunk: Buffer): void => {
    this.receivedBytes += chunk.length;
    if (this.receivedBytes > this.#maxBytes) {
      this.destroy(tooLarge(this.#maxBytes));
    } else if (this.#gunzip === undefined) {
      this.#gathered.add(chunk);
    } else if (!this.#gunzip.write(chunk)) {
      this.#source.pause();
    }
  };

  readonly #receivedAll = (): void => {
    // HTTP/2: the end of a stream that was reset.
    if (this.#request.aborted) {
      this.#closed();
      return;
    }
    if (this.#gunzip === undefined) {
      this.#gathered.flush();
      if (!this.destroyed) this.push(null);
    } else {
      this.#gunzip.end();
    }
  };

  readonly #closed = (): void => {
    if (!isComplete(this.#request)) {
      this.destroy(
        new QuorateError('cancelled', 'The client closed the connection while sending.'),
      );
    }
  };

  #deliver(chunk: Buffer, source: Readable): void {
    this.#decodedBytes += chunk.length;
    if (this.#decodedBytes > this.#maxBytes) {
      this.destroy(tooLarge(this.#maxBytes));
      return;
    }
    if (this.push(chunk)) return;
    this.#wanted = false;
    source.pause();
  }
}

/**
 * Reads and drops what is left of a request, so that the client, which may still be sending, gets to read its answer
 * instead of a reset connection. Resolves with true when all was read; false when a bound was met or the client left.
 */
export function drainRequest(
  request: HttpRequest,
  bounds: {
    readonly maxBytes: number;
    readonly timeoutMs: number;
    /** Aborted when the connection is gone: once its answer is out, Node tells a request nothing of that. */
    readonly signal?: AbortSignal;
  },
): Promise<boolean> {
  if (request.readableEnded || request.destroyed || bounds.signal?.aborted === true) {
    return Promise.resolve(isComplete(request));
  }
  const source: Readable = request;
  return new Promise((resolve) => {
    let bytes = 0;
    const finish = (drained: boolean): void => {
      clearTimeout(timer);
      source.removeListener('data', count);
      source.removeListener('end', ended);
      source.removeListener('close', ended);
      bounds.signal?.removeEventListener('abort', ended);
      resolve(drained);
    };
    const ended = (): void => finish(isComplete(request) && !request.aborted);
    const count = (chunk: Buffer): void => {
      bytes += chunk.length;
      if (bytes <= bounds.maxBytes) return;
      source.pause();
      finish(false);
    };
    const timer = setTimeout(() => finish(false), bounds.timeoutMs);
    source.on('end', ended);
    source.on('close', ended);
    bounds.signal?.addEventListener('abort', ended);
    source.on('data', count);
    source.resume();
  });
}
