import type { StoredPack } from '../contract/backend.js';
import { QuorateError } from '../contract/errors.js';
import type { ClientCall } from './client-call.js';
import { decodeMessage, results } from './messages.js';

type OpenAt = (offset: number) => Promise<ClientCall>;

/** A stored pack on a node. It streams from where it was read last; reading elsewhere begins another stream. */
export class RemotePack implements StoredPack {
  readonly objectCount: number;
  readonly sizeBytes: number;
  readonly #openAt: OpenAt;
  #call: ClientCall;
  #position = 0;
  /** Received, and not asked for yet. */
  #ahead: Buffer = Buffer.alloc(0);

  private constructor(
    openAt: OpenAt,
    call: ClientCall,
    size: { readonly objectCount: number; readonly sizeBytes: number },
  ) {
    this.#openAt = openAt;
    this.#call = call;
    this.objectCount = size.objectCount;
    this.sizeBytes = size.sizeBytes;
  }

  /** Undefined when the node has no such pack. */
  static async open(openAt: OpenAt): Promise<RemotePack | undefined> {
    const { call, pack } = await begin(openAt, 0);
    if (pack !== null) return new RemotePack(openAt, call, pack);
    await call.next();
    return undefined;
  }

  async read(into: readonly Uint8Array[], offset: number): Promise<void> {
    if (offset !== this.#position) await this.#seek(offset);
    for (const buffer of into) {
      for (let at = 0; at < buffer.byteLength;) {
        if (this.#ahead.length === 0) this.#ahead = await this.#receive();
        const taken = this.#ahead.subarray(0, buffer.byteLength - at);
        buffer.set(taken, at);
        this.#ahead = this.#ahead.subarray(taken.length);
        at += taken.length;
        this.#position += taken.length;
      }
    }
    // The end of the stream is read, so that its connection can be used again.
    if (this.#position === this.sizeBytes) await this.#call.next();
  }

  async close(): Promise<void> {
    this.#call.abandon();
    return Promise.resolve();
  }

  async #receive(): Promise<Buffer> {
    const { type, payload } = await this.#call.next();
    if (type === 'data') return payload;
    throw new QuorateError('data-corrupt', 'a stored pack on a storage node ends too early');
  }

  async #seek(offset: number): Promise<void> {
    this.#call.abandon();
    const { call, pack } = await begin(this.#openAt, offset);
    this.#call = call;
    if (pack?.sizeBytes !== this.sizeBytes) {
      call.abandon();
      throw new QuorateError('unavailable', 'a stored pack on a storage node is gone');
    }
    this.#position = offset;
    this.#ahead = Buffer.alloc(0);
  }
}

async function begin(
  openAt: OpenAt,
  offset: number,
): Promise<{
  readonly call: ClientCall;
  readonly pack: { readonly objectCount: number; readonly sizeBytes: number } | null;
}> {
  const call = await openAt(offset);
  try {
    const { type, payload } = await call.next();
    if (type !== 'json') throw new QuorateError('internal', 'a storage node did not name its pack');
    return { call, pack: decodeMessage(results.storedPack, payload).pack };
  } catch (error) {
    call.abandon();
    throw error;
  }
}
