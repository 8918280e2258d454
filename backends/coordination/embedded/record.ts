import { crc32 } from 'node:zlib';
import type { KeyValue } from '../../contract/coordinator.js';
import { QuorateError } from '../../contract/errors.js';

/*
 * One stored entry:
 *
 *   offset  bytes
 *   0       1   format, 1
 *   1       4   CRC-32 of the key's bytes followed by everything from offset 5 on
 *   5       6   create revision, big-endian
 *   11      6   mod revision
 *   17      6   version
 *   23      1   length of the lease id in bytes, 0 for none
 *   24      n   lease id, ASCII
 *   24+n    rest: the value
 *
 * LMDB has no checksums of its own. The key is part of this one, so that an intact record found under another key
 * is noticed too. Six bytes hold 2^48 revisions: 10,000 a second for 890 years.
 */
const format = 1;
const headerBytes = 24;

/** An entry before it is numbered and stored. */
export type Entry = Omit<KeyValue, 'key'>;

export function writeRecord(key: Buffer, entry: Entry): Buffer {
  const lease = entry.lease ?? '';
  const record = Buffer.allocUnsafe(headerBytes + lease.length + entry.value.length);
  record.writeUInt8(format, 0);
  record.writeUIntBE(entry.createRevision, 5, 6);
  record.writeUIntBE(entry.modRevision, 11, 6);
  record.writeUIntBE(entry.version, 17, 6);
  record.writeUInt8(lease.length, 23);
  record.write(lease, headerBytes, 'latin1');
  record.set(entry.value, headerBytes + lease.length);
  record.writeUInt32BE(checksum(key, record), 1);
  return record;
}

/** The entry in a record; its value shares the record's memory. Throws `data-corrupt`. */
export function parseRecord(key: Buffer, record: Buffer): KeyValue {
  const name = key.toString();
  if (
    record.length < headerBytes ||
    record.readUInt8(0) !== format ||
    record.readUInt32BE(1) !== checksum(key, record)
  ) {
    throw new QuorateError('data-corrupt', "an entry in the coordinator's store is damaged", {
      details: { key: name },
    });
  }
  const leaseLength = record.readUInt8(23);
  const entry = {
    key: name,
    value: record.subarray(headerBytes + leaseLength),
    createRevision: record.readUIntBE(5, 6),
    modRevision: record.readUIntBE(11, 6),
    version: record.readUIntBE(17, 6),
  };
  if (leaseLength === 0) return entry;
  return { ...entry, lease: record.toString('latin1', headerBytes, headerBytes + leaseLength) };
}

function checksum(key: Buffer, record: Buffer): number {
  return crc32(record.subarray(5), crc32(key));
}
