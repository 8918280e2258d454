import { maxPktBytes } from '../wire/pkt-line.js';

/** Packets read and written at once: a megabyte, so that what a turn costs does not count. */
export const framesPerBuffer = 16;
export const frameBufferBytes = framesPerBuffer * maxPktBytes;

/** Two of each of eight streams. */
const maxIdle = 16;

/**
 * Buffers of streams that send stored packs, used again by the next one. Made anew for each small clone they were
 * megabytes that die at once, for which V8 collected its whole heap every few clones, at twice the CPU of all else.
 */
export class FrameBuffers {
  readonly #idle: Buffer[] = [];

  /** `frameBufferBytes` of whatever was in it. */
  take(): Buffer {
    return this.#idle.pop() ?? Buffer.allocUnsafeSlow(frameBufferBytes);
  }

  /** Only what nobody reads or writes any more. */
  giveBack(buffers: readonly Buffer[]): void {
    this.#idle.push(...buffers.slice(0, maxIdle - this.#idle.length));
  }
}
