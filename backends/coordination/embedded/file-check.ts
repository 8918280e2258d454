import { open, type FileHandle } from 'node:fs/promises';
import type { Logger } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';

/*
 * LMDB maps the file and trusts it: a foreign file ends the process with SIGSEGV and a truncated one with SIGBUS
 * (both seen). So its two meta pages are read here first. Layout of a meta page as lmdb-js writes it (little-endian):
 *
 *   24  4  magic 0xBEEFC0DE
 *   28  4  version 2
 *   48  4  page size
 *   144 8  number of the last page in use
 *   152 8  transaction id; the higher of the two pages is the current one
 */
const magic = 0xbeefc0de;
const version = 2;
const metaBytes = 160;

interface MetaPage {
  readonly pageSizeBytes: number;
  readonly lastPage: number;
  readonly transactionId: bigint;
}

/**
 * Refuses a file that is no LMDB store of lmdb-js with `data-corrupt`. A file that is shorter than its meta page says
 * is lengthened with zeros, which touches no data: what is missing is then found by LMDB's and our own checks and
 * reported, while reading beyond the end would kill the process. (LMDB may leave trailing pages unwritten when
 * nothing refers to them, so a short file alone proves no damage.)
 */
export async function checkStoreFile(path: string, logger: Logger): Promise<void> {
  let file: FileHandle;
  try {
    file = await open(path, 'r+');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
    throw error;
  }
  try {
    const { size } = await file.stat();
    if (size === 0) return;
    const first = await readMeta(file, 0);
    if (first === undefined) throw notOurs('it is not an LMDB store');
    const second = await readMeta(file, first.pageSizeBytes);
    if (second === undefined) throw notOurs('its second meta page is damaged');
    const current = second.transactionId > first.transactionId ? second : first;
    const expected = (current.lastPage + 1) * first.pageSizeBytes;
    if (size < expected) {
      logger.warn({ size, expected }, "the coordinator's store is shorter than it says");
      await file.truncate(expected);
    }
  } finally {
    await file.close();
  }
}

async function readMeta(file: FileHandle, offset: number): Promise<MetaPage | undefined> {
  const page = Buffer.alloc(metaBytes);
  const { bytesRead } = await file.read(page, 0, metaBytes, offset);
  if (bytesRead < metaBytes) return undefined;
  if (page.readUInt32LE(24) !== magic || page.readUInt32LE(28) !== version) return undefined;
  const pageSizeBytes = page.readUInt32LE(48);
  if (![4_096, 8_192, 16_384, 32_768, 65_536].includes(pageSizeBytes)) return undefined;
  return {
    pageSizeBytes,
    lastPage: Number(page.readBigUInt64LE(144)),
    transactionId: page.readBigUInt64LE(152),
  };
}

function notOurs(reason: string): QuorateError {
  return new QuorateError('data-corrupt', `the coordinator's store cannot be opened: ${reason}`);
}
