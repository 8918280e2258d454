import type { FileHandle } from 'node:fs/promises';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { QuorateError } from '../../backends/contract/errors.js';
import { type AuditFilter, fits, openIfThere, parseCursor, parseEvent } from './audit-trail.js';

export interface AuditNews {
  /** As they were written, oldest first. */
  readonly events: readonly Readonly<Record<string, unknown>>[];
  /** Where to go on. */
  readonly position: string;
  /** Nothing more is there now. */
  readonly atEnd: boolean;
}

/** Reads the audit log on from a place, as it grows. */
export interface AuditTail {
  /** Where the log ends now. It is a place for `AuditTrail.query` too. */
  end(): Promise<string>;
  /**
   * What was written since a place, bounded. When rotation has removed the file of that place, from the oldest file that
   * is left. Throws `invalid-argument` for what is no place, `storage-failure`.
   */
  since(position: string, filter: AuditFilter): Promise<AuditNews>;
}

/** Read at a time. */
const chunkBytes = 256 * 1024;
/** A push of 50,000 refs makes a line of some 12 MB; what is longer is passed over. */
const maxLineBytes = 16 * 1024 * 1024;
const current = 'audit.jsonl';
/** Files that are set aside while they are looked for are there the next time. */
const maxLooks = 3;

/** `directory` is the one that `openAuditLog` writes to. */
export function createAuditTail(directory: string): AuditTail {
  return {
    end: () => told(() => endOf(directory)),
    since: (position, filter) => told(() => readOn(directory, parseCursor(position), filter)),
  };
}

async function told<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof QuorateError) throw error;
    throw new QuorateError('storage-failure', 'the audit log cannot be read', { cause: error });
  }
}

interface Place {
  readonly inode: bigint;
  readonly offset: number;
}

async function endOf(directory: string): Promise<string> {
  const handle = await openIfThere(path.join(directory, current));
  // Just set aside: what comes next is in a file that is not there yet, and is found from the oldest one on.
  if (handle === undefined) return '0-0';
  try {
    const { ino, size } = await handle.stat({ bigint: true });
    return textOf({ inode: ino, offset: Number(size) });
  } finally {
    await handle.close();
  }
}

async function readOn(directory: string, from: Place, filter: AuditFilter): Promise<AuditNews> {
  const files = await filesFrom(directory, from.inode);
  try {
    let place = from;
    for (const [index, { handle, inode }] of files.entries()) {
      if (inode !== place.inode) place = { inode, offset: 0 };
      const read = await linesOf(handle, place.offset);
      place = { inode, offset: read.offset };
      const last = index === files.length - 1;
      if (read.lines.length === 0 && read.atEnd && !last) continue;
      const events = read.lines.flatMap((line) => wanted(line, filter));
      return { events, position: textOf(place), atEnd: last && read.atEnd };
    }
    return { events: [], position: textOf(place), atEnd: true };
  } finally {
    for (const { handle } of files) await handle.close();
  }
}

interface OpenFile {
  readonly handle: FileHandle;
  readonly inode: bigint;
}

/** The log's files, oldest first, from the one with that inode on; all that are left when it is gone. */
async function filesFrom(directory: string, inode: bigint): Promise<readonly OpenFile[]> {
  for (let look = 1; ; look += 1) {
    const { files, isAll } = await openAll(directory);
    const first = files.findIndex((file) => file.inode === inode);
    if (first === -1 && isAll) return files;
    const passed = first === -1 ? files : files.slice(0, first);
    for (const { handle } of passed) await handle.close();
    // It is there, and was not seen: nothing is read for now.
    if (first !== -1 || look === maxLooks) return files.slice(passed.length);
  }
}

/**
 * Whatever is set aside meanwhile, and however the files are listed then, none is missing between those that are opened:
 * after the first one that was not there just before, there are none, and not all.
 */
async function openAll(
  directory: string,
): Promise<{ readonly files: readonly OpenFile[]; readonly isAll: boolean }> {
  const before = new Set(await setAside(directory));
  const newest = await openFile(path.join(directory, current));
  const names = await setAside(directory);
  const unseen = names.findIndex((name) => !before.has(name));
  const files: OpenFile[] = [];
  for (const name of unseen === -1 ? names : names.slice(0, unseen)) {
    const file = await openFile(path.join(directory, name));
    if (file !== undefined) files.push(file);
  }
  if (unseen === -1 && newest !== undefined) files.push(newest);
  else await newest?.handle.close();
  return { files, isAll: unseen === -1 };
}

async function setAside(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory);
  return names.filter((name) => /^audit-\w+\.jsonl$/.test(name)).toSorted();
}

async function openFile(file: string): Promise<OpenFile | undefined> {
  const handle = await openIfThere(file);
  if (handle === undefined) return undefined;
  const { ino } = await handle.stat({ bigint: true });
  return { handle, inode: ino };
}

/** Whole lines from an offset on; the offset after them. A line without its end is still being written, or torn. */
async function linesOf(
  handle: FileHandle,
  from: number,
): Promise<{
  readonly lines: readonly Buffer[];
  readonly offset: number;
  readonly atEnd: boolean;
}> {
  let bytes = Buffer.alloc(0);
  for (;;) {
    const chunk = Buffer.alloc(chunkBytes);
    const { bytesRead } = await handle.read(chunk, 0, chunkBytes, from + bytes.length);
    bytes = Buffer.concat([bytes, chunk.subarray(0, bytesRead)]);
    const atEnd = bytesRead === 0;
    const end = bytes.lastIndexOf('\n') + 1;
    if (end > 0) return { lines: split(bytes.subarray(0, end)), offset: from + end, atEnd };
    if (atEnd) return { lines: [], offset: from, atEnd };
    // The rest of it is no event either, and is passed over when its end is met.
    if (bytes.length > maxLineBytes) return { lines: [], offset: from + bytes.length, atEnd };
  }
}

function split(bytes: Buffer): readonly Buffer[] {
  const lines: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf('\n', at);
    lines.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return lines;
}

function wanted(line: Buffer, filter: AuditFilter): readonly Record<string, unknown>[] {
  const event = parseEvent(line);
  if (event === undefined) return [];
  return fits(event, Date.parse(String(event['time'])), filter) ? [event] : [];
}

function textOf({ inode, offset }: Place): string {
  return `${inode}-${offset}`;
}
