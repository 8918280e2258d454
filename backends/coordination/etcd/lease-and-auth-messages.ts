import type { IResponseHeader } from 'etcd3';
import { emptyHeader, readHeader } from './kv-messages.js';
import { MessageReader, MessageWriter } from './protobuf.js';

/* etcd's messages for leases and for signing in (`rpc.proto`), as `kv-messages.ts` has those for keys. */

/** Numbers as text, as etcd3 gives them: `TTL` is negative where there is no such lease. */
export interface LeaseAnswer {
  readonly header: IResponseHeader;
  readonly ID: string;
  readonly TTL: string;
}

export interface LeaseLeftAnswer extends LeaseAnswer {
  readonly grantedTTL: string;
}

const writer = new MessageWriter();

export function encodeLeaseGrant(id: string, ttlSeconds: number): Buffer {
  writer.begin();
  writer.integer(2, id);
  writer.integer(1, ttlSeconds);
  return writer.finish();
}

/** Of the requests to revoke a lease, to renew it and to ask how long it lives. */
export function encodeLeaseId(id: string): Buffer {
  writer.begin();
  writer.integer(1, id);
  return writer.finish();
}

export function encodeAuthenticate(user: string, password: string): Buffer {
  writer.begin();
  writer.bytes(2, Buffer.from(password));
  writer.bytes(1, Buffer.from(user));
  return writer.finish();
}

/** Of the answers to a grant and to a renewal. */
export function decodeLease(message: Buffer): LeaseAnswer {
  const reader = new MessageReader(message);
  return readLease(reader, () => reader.skip());
}

export function decodeLeaseTimeToLive(message: Buffer): LeaseLeftAnswer {
  const reader = new MessageReader(message);
  let grantedTTL = '0';
  const lease = readLease(reader, (field) => {
    if (field === 4) grantedTTL = reader.integer();
    else reader.skip();
  });
  return { ...lease, grantedTTL };
}

function readLease(reader: MessageReader, other: (field: number) => void): LeaseAnswer {
  let header = emptyHeader;
  let [ID, TTL] = ['0', '0'];
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) header = readHeader(reader.message());
    else if (field === 2) ID = reader.integer();
    else if (field === 3) TTL = signed(reader.integer());
    else other(field);
  }
  return { header, ID, TTL };
}

export function decodeToken(message: Buffer): string {
  const reader = new MessageReader(message);
  let token = '';
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 2) token = reader.bytes().toString();
    else reader.skip();
  }
  return token;
}

function signed(text: string): string {
  return String(BigInt.asIntN(64, BigInt(text)));
}
