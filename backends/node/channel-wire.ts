/**
 * A channel: one connection of a member to a node, kept for all calls that take and answer little. It begins as a
 * signed request `GET /v1/{store}/channel` with `Upgrade: quorate-channel`; from the answer 101 on, messages go both
 * ways:
 *
 *     message = length number *frame mac
 *     length  = 4 bytes, big endian: bytes of what follows
 *     number  = 6 bytes, big endian: of the call; each call's is higher than the one before
 *     frame   = as in `frames.ts`, whole
 *     mac     = 32 bytes, where the cluster has a secret; else nothing, and TLS sees to it
 *
 * A call is one message: `text`, the call's name behind the repository's id, `json`, its arguments, and `data` where
 * there is a pack. So is its answer: what a request's answer has for frames, or `mark` alone when that is too much: the
 * call is then made again as a request. A message without frames is a beat when the node sends it, by which it says
 * that it works on the call, and gives the call up when the caller does; that, too, is answered.
 *
 * The MAC is HMAC-SHA-256 over the number of messages before it in its direction (8 bytes) and the message from
 * `number` on, under a key for each direction, made of the secret and the MAC of the request that opened the channel.
 * That one a node takes once, so nothing of a channel is good anywhere else, or a second time.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import {
  type Frame,
  frameSizeBytes,
  framesIn,
  garbled,
  putFrame,
  type TypedPayload,
} from './frames.js';

export const channelProtocol = 'quorate-channel';

/** A pack that comes with a request to prepare (256 KiB), with room for its arguments. */
export const maxMessageBytes = 512 * 1024;
/** Calls at once on one channel, one of them the sign of life; what is more goes as requests. */
export const maxChannelCalls = 1_000;
/** What one side has not taken yet: some 16 of the largest messages. */
export const maxUnsentBytes = 8 * 1024 * 1024;

const lengthBytes = 4;
const numberBytes = 6;
const macBytes = 32;

export interface ChannelKeys {
  readonly toNode: KeyObject;
  readonly toCaller: KeyObject;
}

/** The keys of the channel that a request opened; none where the cluster has no secret. */
export function channelKeys(
  secret: Buffer | undefined,
  requestMac: string | undefined,
): ChannelKeys | undefined {
  if (secret === undefined || requestMac === undefined) return undefined;
  const key = (direction: string): KeyObject =>
    createSecretKey(
      createHmac('sha256', secret).update(`quorate channel ${direction}\n${requestMac}`).digest(),
    );
  return { toNode: key('to node'), toCaller: key('to caller') };
}

/** One direction's MACs, in turn. */
class Seal {
  readonly #key: KeyObject;
  readonly #count = Buffer.alloc(8);
  #messages = 0;

  constructor(key: KeyObject) {
    this.#key = key;
  }

  next(message: Uint8Array): Buffer {
    this.#count.writeUIntBE(this.#messages, 2, 6);
    this.#messages += 1;
    return createHmac('sha256', this.#key).update(this.#count).update(message).digest();
  }
}

/** Makes the messages of one direction, to be sent in the order in which they are made. */
export class MessageWriter {
  readonly #seal: Seal | undefined;

  constructor(key: KeyObject | undefined) {
    this.#seal = key && new Seal(key);
  }

  message(number: number, frames: readonly TypedPayload[]): Buffer {
    const sealBytes = this.#seal === undefined ? 0 : macBytes;
    let sizeBytes = lengthBytes + numberBytes + sealBytes;
    for (const [, payload] of frames) sizeBytes += frameSizeBytes(payload);
    const bytes = Buffer.allocUnsafe(sizeBytes);
    bytes.writeUInt32BE(sizeBytes - lengthBytes, 0);
    bytes.writeUIntBE(number, lengthBytes, numberBytes);
    let at = lengthBytes + numberBytes;
    for (const frame of frames) at = putFrame(bytes, at, frame);
    if (this.#seal !== undefined) bytes.set(this.#seal.next(bytes.subarray(lengthBytes, at)), at);
    return bytes;
  }
}

/** True when a message with these payloads is not too long to be sent. */
export function fits(payloads: number, payloadBytes: number): boolean {
  return (
    numberBytes + macBytes + payloads * frameSizeBytes(empty) + payloadBytes <= maxMessageBytes
  );
}

export interface Message {
  readonly number: number;
  readonly frames: readonly Frame[];
}

/** Puts the messages of one direction together from what a socket brings. */
export class MessageReader {
  readonly #seal: Seal | undefined;
  readonly #take: (message: Message) => void;
  /** The message that has begun: its length, and as soon as that is known room for all of it. */
  #partial = Buffer.allocUnsafe(lengthBytes);
  #partialBytes = 0;

  constructor(key: KeyObject | undefined, take: (message: Message) => void) {
    this.#seal = key && new Seal(key);
    this.#take = take;
  }

  /** Throws at what is no message, or not made with the key; nothing may be read after that. */
  read(chunk: Buffer): void {
    for (let rest = chunk; rest.length > 0;) {
      if (this.#partialBytes === 0 && rest.length >= lengthBytes) {
        const sizeBytes = this.#sizeOf(rest);
        if (rest.length >= sizeBytes) {
          this.#finish(rest.subarray(lengthBytes, sizeBytes));
          rest = rest.subarray(sizeBytes);
          continue;
        }
      }
      rest = rest.subarray(this.#keep(rest));
    }
  }

  /** Takes what belongs to the message that has begun; returns how much that was. */
  #keep(bytes: Buffer): number {
    const taken = bytes.copy(this.#partial, this.#partialBytes);
    this.#partialBytes += taken;
    if (this.#partialBytes < this.#partial.length) return taken;
    if (this.#partialBytes === lengthBytes) {
      const whole = Buffer.allocUnsafe(this.#sizeOf(this.#partial));
      this.#partial.copy(whole);
      this.#partial = whole;
      return taken;
    }
    const whole = this.#partial;
    this.#partial = Buffer.allocUnsafe(lengthBytes);
    this.#partialBytes = 0;
    this.#finish(whole.subarray(lengthBytes));
    return taken;
  }

  #sizeOf(begin: Buffer): number {
    const size = begin.readUInt32BE(0);
    const sealBytes = this.#seal === undefined ? 0 : macBytes;
    if (size < numberBytes + sealBytes || size > maxMessageBytes) throw garbled();
    return lengthBytes + size;
  }

  #finish(message: Buffer): void {
    let end = message.length;
    if (this.#seal !== undefined) {
      end -= macBytes;
      const mac = this.#seal.next(message.subarray(0, end));
      if (!timingSafeEqual(mac, message.subarray(end))) throw garbled();
    }
    const frames = framesIn(message.subarray(numberBytes, end));
    this.#take({ number: message.readUIntBE(0, numberBytes), frames });
  }
}

const empty = Buffer.alloc(0);
