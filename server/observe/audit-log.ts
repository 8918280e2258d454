import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import type { Clock, Logger, Meter } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import type { AuditEvent, AuditLog } from './audit.js';

export interface AuditLogOptions {
  /** Existing directory; the log is `audit.jsonl` in it, older parts are `audit-<UTC time>.jsonl`. */
  readonly directory: string;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly meter: Meter;
  /** A file that would grow beyond this is set aside first. */
  readonly maxFileBytes: number;
  /** Files set aside that are kept; the oldest go first. 0: all are kept. */
  readonly maxFiles: number;
  /** Queue bound, for tests. */
  readonly maxQueuedBytes?: number;
}

export interface FileAuditLog extends AuditLog {
  /** Why the log cannot be written now, or undefined while all is well. For readiness. */
  problem(): string | undefined;
}

/**
 * A push of 50,000 refs (the default bound) makes a line of about 12 MB; 64 MiB holds a few of them and some 200,000
 * ordinary lines. Reached only when the disk fails or stalls; then new events are dropped, counted and reported.
 */
const defaultMaxQueuedBytes = 64 * 1024 * 1024;
/** A failing disk is tried again this often: soon enough after space was made, rare enough not to flood the log. */
const retryAfterMs = 1_000;
/** How long an event that nobody waits for may wait for company: one sync of the disk costs as much as many events. */
const gatherMs = 100;
const fileName = 'audit.jsonl';

/**
 * Opens the audit log: JSON lines, mode 0600, appended in order, one write and one fdatasync per batch of whatever
 * was queued meanwhile. A torn last line (power cut while writing) is closed with a newline and left as evidence.
 *
 * While the disk fails, lines stay queued and are tried again every second; `flush` rejects with `storage-failure`
 * and `problem()` says why. Rejects with `storage-failure` when the file cannot be opened.
 */
export async function openAuditLog(options: AuditLogOptions): Promise<FileAuditLog> {
  let file: OpenFile;
  try {
    file = await openFile(options.directory);
  } catch (error) {
    throw new QuorateError('storage-failure', 'the audit log cannot be opened', { cause: error });
  }
  if (file.torn) {
    options.logger.warn({ component: 'audit' }, 'the last audit line was cut short by a crash');
  }
  return new AuditQueue(file, options);
}

interface OpenFile {
  readonly handle: FileHandle;
  /** Bytes known to be whole lines; what a failed write left beyond is cut off. */
  sizeBytes: number;
  readonly torn: boolean;
}

interface Waiter {
  readonly upTo: number;
  resolve(): void;
  reject(error: Error): void;
}

class AuditQueue implements FileAuditLog {
  readonly #options: AuditLogOptions;
  readonly #maxQueuedBytes: number;
  #file: OpenFile;
  #lines: Buffer[] = [];
  #queuedBytes = 0;
  #recorded = 0;
  #written = 0;
  #dropped = 0;
  #waiters: Waiter[] = [];
  #pump: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #soon: NodeJS.Timeout | undefined;
  #problem: string | undefined;
  #closed = false;

  constructor(file: OpenFile, options: AuditLogOptions) {
    this.#file = file;
    this.#options = options;
    this.#maxQueuedBytes = options.maxQueuedBytes ?? defaultMaxQueuedBytes;
    options.meter.gauge('queue_depth', { queue: 'audit' }, () => this.#recorded - this.#written);
  }

  record(event: AuditEvent): void {
    if (this.#closed) return;
    const line = this.#line(event);
    if (this.#queuedBytes + line.length > this.#maxQueuedBytes) {
      if (this.#dropped === 0) {
        this.#options.logger.error({ component: 'audit' }, 'audit events are being dropped');
      }
      this.#dropped += 1;
      return;
    }
    this.#push(line);
    this.#startSoon();
  }

  async flush(): Promise<void> {
    if (this.#written === this.#recorded) return;
    const waited = new Promise<void>((resolve, reject) => {
      this.#waiters.push({ upTo: this.#recorded, resolve, reject });
    });
    this.#start();
    await waited;
  }

  problem(): string | undefined {
    return this.#problem;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.flush().catch((error: unknown) => {
      const lost = this.#recorded - this.#written;
      this.#options.logger.error({ component: 'audit', lost, err: error }, 'audit events are lost');
    });
    clearTimeout(this.#retry);
    clearTimeout(this.#soon);
    await this.#pump;
    await this.#file.handle.close();
  }

  #line(event: AuditEvent): Buffer {
    const time = new Date(this.#options.clock.nowMs()).toISOString();
    try {
      return Buffer.from(`${JSON.stringify({ time, ...event })}\n`);
    } catch (error) {
      this.#options.logger.error({ component: 'audit', err: error }, 'audit details are no JSON');
      return Buffer.from(`${JSON.stringify({ time, ...event, details: {} })}\n`);
    }
  }

  #push(line: Buffer): void {
    this.#lines.push(line);
    this.#queuedBytes += line.length;
    this.#recorded += 1;
  }

  /** Events that nobody waits for share a write and a sync. */
  #startSoon(): void {
    if (this.#retry !== undefined || this.#pump !== undefined) return;
    this.#soon ??= setTimeout(() => this.#start(), gatherMs).unref();
  }

  #start(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#soon);
    this.#retry = undefined;
    this.#soon = undefined;
    this.#pump ??= this.#run().finally(() => {
      this.#pump = undefined;
      // What was recorded between the last look at the queue and here has nobody else to start it.
      if (this.#lines.length > 0 && this.#retry === undefined) this.#start();
    });
  }

  async #run(): Promise<void> {
    while (this.#lines.length > 0) {
      const batch = this.#lines;
      this.#lines = [];
      try {
        await this.#write(Buffer.concat(batch));
      } catch (error) {
        this.#lines = [...batch, ...this.#lines];
        this.#fail(error);
        return;
      }
      this.#succeed(batch);
    }
  }

  #succeed(batch: readonly Buffer[]): void {
    this.#written += batch.length;
    for (const line of batch) this.#queuedBytes -= line.length;
    if (this.#problem !== undefined) {
      this.#options.logger.info({ component: 'audit' }, 'the audit log is written again');
    }
    this.#problem = undefined;
    if (this.#dropped > 0) {
      const dropped = this.#dropped;
      this.#dropped = 0;
      const details = { action: 'audit-events-dropped', dropped };
      this.#push(this.#line({ event: 'admin', outcome: 'error', actor: 'system', details }));
    }
    const done = this.#waiters.filter((waiter) => waiter.upTo <= this.#written);
    this.#waiters = this.#waiters.filter((waiter) => waiter.upTo > this.#written);
    for (const waiter of done) waiter.resolve();
  }

  #fail(error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    if (this.#problem === undefined) {
      this.#options.logger.error(
        { component: 'audit', err: error },
        'the audit log cannot be written',
      );
    }
    this.#problem = reason;
    const waiters = this.#waiters;
    this.#waiters = [];
    const failure = new QuorateError('storage-failure', 'the audit log cannot be written', {
      cause: error,
    });
    for (const waiter of waiters) waiter.reject(failure);
    if (this.#closed) this.#drop();
    else this.#retry = setTimeout(() => this.#start(), retryAfterMs).unref();
  }

  /** After `close` nobody is left to try again; `close` reports how many were lost. */
  #drop(): void {
    this.#lines = [];
    this.#queuedBytes = 0;
  }

  async #write(bytes: Buffer): Promise<void> {
    const { maxFileBytes } = this.#options;
    if (this.#file.sizeBytes > 0 && this.#file.sizeBytes + bytes.length > maxFileBytes) {
      await this.#setAside();
    }
    const { handle, sizeBytes } = this.#file;
    // A write that failed half-way must not leave half a line before the one that is tried again.
    if (this.#problem !== undefined) await handle.truncate(sizeBytes);
    for (let offset = 0; offset < bytes.length;) {
      offset += (await handle.write(bytes, offset)).bytesWritten;
    }
    this.#file.sizeBytes = sizeBytes + bytes.length;
  }

  async #setAside(): Promise<void> {
    const { directory, clock, maxFiles } = this.#options;
    const stamp = new Date(clock.nowMs()).toISOString().replaceAll(/[-:.]/g, '');
    const names = await olderParts(directory);
    let name = `audit-${stamp}.jsonl`;
    for (let n = 1; names.includes(name); n += 1) name = `audit-${stamp}_${n}.jsonl`;
    await rename(path.join(directory, fileName), path.join(directory, name));
    const fresh = await openFile(directory);
    await this.#file.handle.close();
    this.#file = fresh;
    if (maxFiles === 0) return;
    const surplus = [...names, name].toSorted().slice(0, -maxFiles);
    for (const old of surplus) await rm(path.join(directory, old), { force: true });
  }
}

async function olderParts(directory: string): Promise<readonly string[]> {
  return (await readdir(directory)).filter((name) => /^audit-\w+\.jsonl$/.test(name));
}

/** Opens for appending, creates durably, and ends a torn last line. */
async function openFile(directory: string): Promise<OpenFile> {
  // A write returns when it is on disk: one way to the disk instead of two.
  const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_DSYNC;
  const handle = await open(path.join(directory, fileName), flags, 0o600);
  try {
    let sizeBytes = (await handle.stat()).size;
    const last = Buffer.alloc(1);
    if (sizeBytes > 0) await handle.read(last, 0, 1, sizeBytes - 1);
    const torn = sizeBytes > 0 && last.toString() !== '\n';
    if (torn) {
      await handle.write('\n');
      sizeBytes += 1;
    }
    await handle.sync();
    await syncDirectory(directory);
    return { handle, sizeBytes, torn };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
