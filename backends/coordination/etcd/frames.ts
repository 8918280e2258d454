/* Frames of HTTP/2 (RFC 9113, section 4.1). */

export const frameType = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flag = {
  endStream: 0x1,
  ack: 0x1,
  endHeaders: 0x4,
  padded: 0x8,
  priority: 0x20,
} as const;

export const frameHeadBytes = 9;

export interface FrameHead {
  /** Of what follows. */
  readonly size: number;
  readonly type: number;
  readonly flags: number;
  /** Of the stream; 0: of the connection. */
  readonly id: number;
}

/** Undefined while it is not all there. */
export function readFrameHead(bytes: Buffer, at: number): FrameHead | undefined {
  if (bytes.length - at < frameHeadBytes) return undefined;
  return {
    size: bytes.readUIntBE(at, 3),
    type: bytes[at + 3] ?? 0,
    flags: bytes[at + 4] ?? 0,
    id: bytes.readUInt32BE(at + 5) % 2 ** 31,
  };
}

/** `payload` is copied. */
export function frame(type: number, flags: number, id: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(frameHeadBytes + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(id, 5);
  bytes.set(payload, frameHeadBytes);
  return bytes;
}

/** What of a DATA or HEADERS frame is content. */
export function withoutPadding({ type, flags }: FrameHead, payload: Buffer): Buffer {
  const padding = (flags & flag.padded) === 0 ? 0 : 1 + (payload[0] ?? 0);
  const start = padding === 0 ? 0 : 1;
  // Priorities are of the past.
  const skipped = type === frameType.headers && (flags & flag.priority) !== 0 ? 5 : 0;
  if (padding + skipped > payload.length) throw new Error('padding that is too long');
  return payload.subarray(start + skipped, payload.length - (padding - start));
}

export function setting(name: number, value: number): Buffer {
  const bytes = Buffer.alloc(6);
  bytes.writeUInt16BE(name, 0);
  bytes.writeUInt32BE(value, 2);
  return bytes;
}

/** Of the connection. */
export function windowUpdate(more: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(more);
  return frame(frameType.windowUpdate, 0, 0, bytes);
}
