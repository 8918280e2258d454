import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { StoredPack } from '../contract/backend.js';
import { QuorateError } from '../contract/errors.js';

/** `PACK`, version, number of objects (gitformat-pack(5)). */
const headerBytes = 12;

/**
 * Opens a pack by the hash that names it. Undefined when there is no such file, when it cannot be read, or when it
 * does not begin as a pack and end with that hash.
 */
export async function openStoredPack(
  packDirectory: string,
  hash: string,
): Promise<StoredPack | undefined> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(join(packDirectory, `pack-${hash}.pack`), 'r');
    const { size } = await handle.stat();
    const trailer = Buffer.alloc(hash.length / 2);
    const header = Buffer.alloc(headerBytes);
    if (size > headerBytes + trailer.length) {
      const pack = new PackFile(handle, { sizeBytes: size, header });
      await pack.read([header], 0);
      await pack.read([trailer], size - trailer.length);
      const isPack = header.toString('latin1', 0, 4) === 'PACK' && header.readUInt32BE(4) === 2;
      if (isPack && trailer.toString('hex') === hash) return pack;
    }
  } catch {
    // Whoever asked goes the other way, where a disk that fails shows.
  }
  await handle?.close().catch(() => undefined);
  return undefined;
}

class PackFile implements StoredPack {
  readonly sizeBytes: number;
  readonly #handle: FileHandle;
  readonly #header: Buffer;
  #closed = false;

  constructor(handle: FileHandle, about: { readonly sizeBytes: number; readonly header: Buffer }) {
    this.#handle = handle;
    this.sizeBytes = about.sizeBytes;
    this.#header = about.header;
  }

  get objectCount(): number {
    return this.#header.readUInt32BE(8);
  }

  async read(into: readonly Uint8Array[], offset: number): Promise<void> {
    let left: Uint8Array[] = into.filter(({ length }) => length > 0);
    let position = offset;
    while (left.length > 0) {
      const bytesRead = await this.#readSome(left, position);
      if (bytesRead === 0) throw new QuorateError('data-corrupt', 'a pack is cut off');
      position += bytesRead;
      left = behind(left, bytesRead);
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#handle.close();
  }

  async #readSome(into: Uint8Array[], position: number): Promise<number> {
    try {
      return (await this.#handle.readv(into, position)).bytesRead;
    } catch (cause) {
      throw new QuorateError('storage-failure', 'a pack cannot be read', { cause });
    }
  }
}

/** What is still to be filled after so many bytes. */
function behind(views: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let filled = bytes;
  const left: Uint8Array[] = [];
  for (const view of views) {
    const skipped = Math.min(filled, view.length);
    filled -= skipped;
    if (skipped < view.length) left.push(view.subarray(skipped));
  }
  return left;
}
