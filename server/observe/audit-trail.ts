import { open, readdir, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { QuorateError } from '../../backends/contract/errors.js';

/** Which events are wanted; what is left out is not asked about. */
export interface AuditFilter {
  readonly repository?: string | undefined;
  /** The actor: a user's name, or what stands for none (`anonymous`, `unknown`, `system`). */
  readonly user?: string | undefined;
  readonly event?: string | undefined;
  readonly outcome?: string | undefined;
  /** Milliseconds since 1970, inclusive. */
  readonly sinceMs?: number | undefined;
  /** Exclusive. */
  readonly untilMs?: number | undefined;
}

export interface AuditPage {
  /** As they were written, newest first. */
  readonly events: readonly Readonly<Record<string, unknown>>[];
  /** Where to go on, or undefined at the end. A page may be short, even empty, with more to come. */
  readonly next: string | undefined;
}

/** Reads the audit log back. */
export interface AuditTrail {
  /**
   * Events that fit, newest first. Bounded: at most `limit` events, some megabytes of them, and so much of the log
   * read; `after` is the `next` of the page before. What rotation has removed meanwhile is left out. Throws
   * `invalid-argument` for an `after` that is none, `storage-failure`, `cancelled`.
   */
  query(
    filter: AuditFilter,
    page: {
      readonly limit: number;
      readonly after?: string | undefined;
      readonly signal: AbortSignal;
    },
  ): Promise<AuditPage>;
}

/** Read from the end in pieces of this size. */
const chunkBytes = 256 * 1024;
/** A push of 50,000 refs makes a line of some 12 MB; what is longer is passed over. */
const maxLineBytes = 16 * 1024 * 1024;
/** Of lines in one answer: one line may be larger. */
const maxPageBytes = 4 * 1024 * 1024;
/** Read for one answer: about a second's work. */
const maxScanBytes = 128 * 1024 * 1024;
/** A clock that was set back may make a later line look older: reading stops only this far beyond `since`. */
const clockSlackMs = 3_600_000;

/** `directory` is the one that `openAuditLog` writes to. */
export function createAuditTrail(directory: string): AuditTrail {
  return {
    query: async (filter, page) => {
      try {
        return await read(directory, filter, page);
      } catch (error) {
        if (error instanceof QuorateError) throw error;
        throw new QuorateError('storage-failure', 'the audit log cannot be read', { cause: error });
      }
    },
  };
}

type PageWanted = Parameters<AuditTrail['query']>[1];

async function read(
  directory: string,
  filter: AuditFilter,
  wanted: PageWanted,
): Promise<AuditPage> {
  const events: Record<string, unknown>[] = [];
  let from = wanted.after === undefined ? undefined : parseCursor(wanted.after);
  let scanned = 0;
  let taken = 0;
  for await (const { handle, inode, size } of files(directory)) {
    if (from !== undefined && from.inode !== inode) continue;
    const end = Math.min(from?.offset ?? size, size);
    from = undefined;
    for await (const { line, offset, passed } of linesBackwards(handle, end)) {
      if (wanted.signal.aborted) throw new QuorateError('cancelled', 'the client left');
      scanned += passed;
      const event = parseEvent(line);
      const atMs = event === undefined ? Number.NaN : Date.parse(String(event['time']));
      if (filter.sinceMs !== undefined && atMs < filter.sinceMs - clockSlackMs) {
        return { events, next: undefined };
      }
      if (event !== undefined && fits(event, atMs, filter)) {
        events.push(event);
        taken += line.length;
      }
      if (events.length >= wanted.limit || taken >= maxPageBytes || scanned >= maxScanBytes) {
        return { events, next: `${inode}-${offset}` };
      }
    }
  }
  return { events, next: undefined };
}

export function parseCursor(text: string): { readonly inode: bigint; readonly offset: number } {
  const match = /^(\d{1,20})-(\d{1,15})$/.exec(text);
  if (match === null)
    throw new QuorateError('invalid-argument', 'after is no place in the audit log');
  return { inode: BigInt(match[1] ?? ''), offset: Number(match[2]) };
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly inode: bigint;
  readonly size: number;
}

/**
 * The log's files, newest first. The current one is opened before the older ones are listed: when it is set aside in
 * between, it is met again under its new name and passed over, and nothing is missed.
 */
async function* files(directory: string): AsyncGenerator<OpenFile, void, undefined> {
  const seen = new Set<bigint>();
  const names = ['audit.jsonl'];
  for (let index = 0; index < names.length; index += 1) {
    const handle = await openIfThere(path.join(directory, names[index] ?? ''));
    if (index === 0) {
      const older = (await readdir(directory)).filter((name) => /^audit-\w+\.jsonl$/.test(name));
      names.push(...older.toSorted().toReversed());
    }
    if (handle === undefined) continue;
    try {
      const { ino, size } = await handle.stat({ bigint: true });
      if (!seen.has(ino)) yield { handle, inode: ino, size: Number(size) };
      seen.add(ino);
    } finally {
      await handle.close();
    }
  }
}

export async function openIfThere(file: string): Promise<FileHandle | undefined> {
  try {
    return await open(file, 'r');
  } catch (error) {
    // Rotation has removed it.
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

interface Line {
  /** Without its line feed; empty for one that is too long. */
  readonly line: Buffer;
  /** Where it starts. */
  readonly offset: number;
  /** Bytes of the file that were passed for it. */
  readonly passed: number;
}

const lineFeed = 0x0a;

/** The lines that end before `end`, last first. What follows the last line feed is still being written, or torn. */
async function* linesBackwards(
  handle: FileHandle,
  end: number,
): AsyncGenerator<Line, void, undefined> {
  /** Pieces of the line that reaches into what was read before, first piece last. */
  let tail: Buffer[] = [];
  let tailBytes = 0;
  /** Undefined until the first line feed is met. */
  let lineEnd: number | undefined;
  for (let position = end; position > 0;) {
    const start = Math.max(0, position - chunkBytes);
    const chunk = await readFully(handle, start, position - start);
    let to = chunk.length;
    for (
      let at = chunk.lastIndexOf(lineFeed);
      at >= 0;
      at = at === 0 ? -1 : chunk.lastIndexOf(lineFeed, at - 1)
    ) {
      if (lineEnd !== undefined) {
        const piece = chunk.subarray(at + 1, to);
        const whole = piece.length + tailBytes <= maxLineBytes;
        yield {
          line: whole ? Buffer.concat([piece, ...tail.toReversed()]) : Buffer.alloc(0),
          offset: start + at + 1,
          passed: lineEnd - (start + at),
        };
      }
      tail = [];
      tailBytes = 0;
      lineEnd = start + at;
      to = at;
    }
    if (lineEnd !== undefined) {
      tailBytes += to;
      if (tailBytes <= maxLineBytes) tail.push(chunk.subarray(0, to));
      else tail = [];
    }
    position = start;
  }
  if (lineEnd !== undefined && tailBytes <= maxLineBytes) {
    yield { line: Buffer.concat(tail.toReversed()), offset: 0, passed: lineEnd };
  }
}

async function readFully(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let read = 0;
  while (read < length) {
    const { bytesRead } = await handle.read(bytes, read, length - read, position + read);
    if (bytesRead === 0) break;
    read += bytesRead;
  }
  return bytes.subarray(0, read);
}

/** Undefined for a line that a crash tore, or that is too long. */
export function parseEvent(line: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line.toString());
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? { ...value }
      : undefined;
  } catch {
    return undefined;
  }
}

function same(wanted: string | undefined, is: unknown): boolean {
  return wanted === undefined || wanted === is;
}

export function fits(event: Record<string, unknown>, atMs: number, filter: AuditFilter): boolean {
  return (
    same(filter.repository, event['repository']) &&
    same(filter.user, event['actor']) &&
    same(filter.event, event['event']) &&
    same(filter.outcome, event['outcome']) &&
    !(filter.sinceMs !== undefined && atMs < filter.sinceMs) &&
    !(filter.untilMs !== undefined && atMs >= filter.untilMs)
  );
}
