import { Readable, Writable } from 'node:stream';
import type { ServerChannel } from 'ssh2';
import { GatheredChunks } from '../core/gathered-chunks.js';
import type { SocketPressure } from './socket-pressure.js';

/** Most that is merged into one write, and so the most that one channel adds above the socket's bound. */
const outputBufferBytes = 256 * 1024;

/** Told whenever the client gave or took bytes. */
type Progress = () => void;

/**
 * The client's bytes. A stream of its own, since ssh2's channel is both directions in one: who is done with reading and
 * destroys its input would close the output too.
 */
export class ChannelInput extends Readable {
  readonly #channel: ServerChannel;
  readonly #gathered = new GatheredChunks((chunk) => {
    if (!this.push(chunk)) this.#channel.pause();
  });
  #receivedBytes = 0;
  #starved = false;

  constructor(channel: ServerChannel, progress: Progress) {
    super({ highWaterMark: 64 * 1024 });
    this.#channel = channel;
    // The consumer may be gone when the client disconnects.
    this.on('error', () => undefined);
    channel.pause();
    channel.on('data', (chunk: Buffer) => {
      this.#receivedBytes += chunk.length;
      this.#starved = false;
      progress();
      if (!this.destroyed) this.#gathered.add(chunk);
    });
    channel.once('end', () => {
      this.#starved = false;
      if (this.destroyed) return;
      this.#gathered.flush();
      this.push(null);
    });
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Somebody reads, and the client has sent nothing. */
  get starved(): boolean {
    return this.#starved && !this.destroyed;
  }

  override _read(): void {
    this.#starved = true;
    this.#channel.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#starved = false;
    this.#gathered.drop();
    this.#channel.pause();
    callback(error);
  }
}

/**
 * What the client is sent. A write is over when ssh2 has passed it on within the client's window and the socket is
 * below its bound; a client that does not read stops the writer. Ending it does not end the channel.
 */
export class ChannelOutput extends Writable {
  readonly #channel: ServerChannel;
  readonly #pressure: SocketPressure;
  readonly #progress: Progress;
  #sentBytes = 0;
  #blocked = false;

  constructor(channel: ServerChannel, pressure: SocketPressure, progress: Progress) {
    super({ highWaterMark: outputBufferBytes, decodeStrings: true });
    this.#channel = channel;
    this.#pressure = pressure;
    this.#progress = progress;
    this.on('error', () => undefined);
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** Something waits for the client to read. */
  get blocked(): boolean {
    return this.#blocked && !this.destroyed;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    this.#send(chunk, callback);
  }

  /** Small writes (pkt-lines) become one packet. */
  override _writev(chunks: { chunk: Buffer }[], callback: () => void): void {
    this.#send(Buffer.concat(chunks.map(({ chunk }) => chunk)), callback);
  }

  /** When the connection or the channel closes, ssh2 forgets the write: destroying this stream then ends the wait. */
  #send(data: Buffer, callback: () => void): void {
    if (data.length === 0) {
      callback();
      return;
    }
    this.#blocked = true;
    const mark = this.#pressure.mark();
    this.#channel.write(data, () => {
      this.#pressure.settled(mark, data.length, () => {
        this.#blocked = false;
        this.#sentBytes += data.length;
        this.#progress();
        callback();
      });
    });
  }
}
