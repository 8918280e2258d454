import { type FileHandle, mkdir, open, rm, unlink } from 'node:fs/promises';
import { join } from 'node:path';

/** A bounded place on disk for a stream of any length: what lies `sizeBytes` behind its end is written over. */
export interface Spool {
  readonly sizeBytes: number;
  /** Writes what belongs at `offset` of the stream. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** Some of the stream's bytes from `offset` on, at least one and at most `maxBytes`; they were written before. */
  read(offset: number, maxBytes: number): Promise<Uint8Array>;
  /** No write and no read may be running. */
  close(): Promise<void>;
}

/** Opens one; undefined when there are too many, or the disk takes none. */
export type OpenSpool = () => Promise<Spool | undefined>;

/** Spools in one directory, which is emptied when the first is opened: what a killed server left has no other owner. */
export class Spools {
  readonly #directory: string;
  readonly #most: number;
  readonly #sizeBytes: number;
  #prepared: Promise<void> | undefined;
  #open = 0;
  #made = 0;

  constructor(
    directory: string,
    { most, sizeBytes }: { readonly most: number; readonly sizeBytes: number },
  ) {
    this.#directory = directory;
    this.#most = most;
    this.#sizeBytes = sizeBytes;
  }

  async open(): Promise<Spool | undefined> {
    if (this.#open >= this.#most) return undefined;
    this.#open += 1;
    try {
      this.#prepared ??= this.#prepare();
      await this.#prepared;
      const path = join(this.#directory, String(this.#made++));
      const handle = await open(path, 'wx+', 0o600);
      // Without a name it goes with the last descriptor, however this process ends.
      await unlink(path);
      return new FileSpool(handle, this.#sizeBytes, () => {
        this.#open -= 1;
      });
    } catch {
      this.#open -= 1;
      this.#prepared = undefined;
      return undefined;
    }
  }

  async #prepare(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
  }
}

class FileSpool implements Spool {
  readonly sizeBytes: number;
  readonly #handle: FileHandle;
  readonly #closed: () => void;

  constructor(handle: FileHandle, sizeBytes: number, closed: () => void) {
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
    this.#closed = closed;
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const place = (offset + done) % this.sizeBytes;
      const length = Math.min(bytes.length - done, this.sizeBytes - place);
      const { bytesWritten } = await this.#handle.write(bytes, done, length, place);
      done += bytesWritten;
    }
  }

  async read(offset: number, maxBytes: number): Promise<Uint8Array> {
    const place = offset % this.sizeBytes;
    const length = Math.min(maxBytes, this.sizeBytes - place);
    const { bytesRead, buffer } = await this.#handle.read(
      Buffer.allocUnsafe(length),
      0,
      length,
      place,
    );
    if (bytesRead === 0) throw new Error('a spool is shorter than what was written to it');
    return buffer.subarray(0, bytesRead);
  }

  async close(): Promise<void> {
    await this.#handle.close().finally(this.#closed);
  }
}
