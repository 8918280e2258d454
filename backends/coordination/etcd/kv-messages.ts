import type {
  ICompare,
  IDeleteRangeResponse,
  IKeyValue,
  IPutRequest,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  IResponseHeader,
  ITxnRequest,
  ITxnResponse,
} from 'etcd3';
import { CompareResult, CompareTarget } from 'etcd3/lib/rpc.js';
import { MessageReader, MessageWriter } from './protobuf.js';

/*
 * etcd's messages on the wire (`rpc.proto`, `kv.proto`), with the fields that we use. Fields of requests are written
 * from the last to the first, see `MessageWriter`.
 */

export type RangeAnswer = Pick<IRangeResponse, 'kvs' | 'more'>;

export interface RangePage extends RangeAnswer {
  readonly header: IResponseHeader;
}

/** What is at its place in the answer to a transaction. */
export interface OperationAnswer {
  readonly response_range?: RangeAnswer;
  readonly response_delete_range?: Pick<IDeleteRangeResponse, 'deleted'>;
}

export interface TxnAnswer extends Pick<ITxnResponse, 'header' | 'succeeded'> {
  readonly responses: readonly OperationAnswer[];
}

const writer = new MessageWriter();

export function encodeRange(request: IRangeRequest): Buffer {
  writer.begin();
  writeRange(request);
  return writer.finish();
}

export function encodeTxn({ compare = [], success = [], failure = [] }: ITxnRequest): Buffer {
  writer.begin();
  for (const one of failure.toReversed()) writer.message(3, () => writeOperation(one));
  for (const one of success.toReversed()) writer.message(2, () => writeOperation(one));
  for (const one of compare.toReversed()) writer.message(1, () => writeCompare(one));
  return writer.finish();
}

function writeRange(request: IRangeRequest): void {
  const { key, range_end: end, limit, revision } = request;
  if (request.keys_only === true) writer.integer(8, 1);
  if (request.serializable === true) writer.integer(7, 1);
  if (revision !== undefined) writer.integer(4, revision);
  if (limit !== undefined) writer.integer(3, limit);
  if (end !== undefined) writer.bytes(2, end);
  if (key !== undefined) writer.bytes(1, key);
}

function writePut({ key, value, lease }: IPutRequest): void {
  if (lease !== undefined) writer.integer(3, lease);
  if (value !== undefined) writer.bytes(2, value);
  if (key !== undefined) writer.bytes(1, key);
}

function writeOperation(operation: IRequestOp): void {
  const { request_range: range, request_put: put, request_delete_range: deleted } = operation;
  if (range !== undefined) writer.message(1, () => writeRange(range));
  if (put !== undefined) writer.message(2, () => writePut(put));
  if (deleted !== undefined) {
    writer.message(3, () => {
      if (deleted.range_end !== undefined) writer.bytes(2, deleted.range_end);
      if (deleted.key !== undefined) writer.bytes(1, deleted.key);
    });
  }
}

function writeCompare(compare: ICompare): void {
  const { result = 'Equal', target = 'Version', key, value, range_end: end } = compare;
  if (end !== undefined) writer.bytes(64, end);
  if (value !== undefined) writer.bytes(7, value);
  if (compare.mod_revision !== undefined) writer.integer(6, compare.mod_revision);
  if (compare.create_revision !== undefined) writer.integer(5, compare.create_revision);
  if (compare.version !== undefined) writer.integer(4, compare.version);
  if (key !== undefined) writer.bytes(3, key);
  writer.integer(2, typeof target === 'string' ? CompareTarget[target] : target);
  writer.integer(1, typeof result === 'string' ? CompareResult[result] : result);
}

export function decodeRange(message: Buffer): RangePage {
  const reader = new MessageReader(message);
  let header = emptyHeader;
  const { kvs, more } = readRange(reader, (field) => {
    if (field === 1) header = readHeader(reader.message());
    else reader.skip();
  });
  return { header, kvs, more };
}

export function decodeTxn(message: Buffer): TxnAnswer {
  const reader = new MessageReader(message);
  let header = emptyHeader;
  let succeeded = false;
  const responses: OperationAnswer[] = [];
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) header = readHeader(reader.message());
    else if (field === 2) succeeded = reader.integer() !== '0';
    else if (field === 3) responses.push(readOperation(reader.message()));
    else reader.skip();
  }
  return { header, succeeded, responses };
}

/** The header of an answer of which nothing else is wanted. */
export function decodeHeader(message: Buffer): { readonly header: IResponseHeader } {
  const reader = new MessageReader(message);
  let header = emptyHeader;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) header = readHeader(reader.message());
    else reader.skip();
  }
  return { header };
}

/** What a member says of itself (`StatusResponse`). */
export interface MemberState {
  readonly memberId: string;
  /** '0': it knows of none. */
  readonly leaderId: string;
  /** What is wrong, in etcd's words: `memberID:1 alarm:NOSPACE`, `etcdserver: no leader`. */
  readonly errors: readonly string[];
}

export function decodeMemberState(message: Buffer): MemberState {
  const reader = new MessageReader(message);
  let header = emptyHeader;
  let leaderId = '0';
  const errors: string[] = [];
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) header = readHeader(reader.message());
    else if (field === 4) leaderId = reader.integer();
    else if (field === 8) errors.push(reader.bytes().toString());
    else reader.skip();
  }
  return { memberId: header.member_id, leaderId, errors };
}

export const emptyHeader: IResponseHeader = {
  cluster_id: '0',
  member_id: '0',
  revision: '0',
  raft_term: '0',
};

export function readHeader(reader: MessageReader): IResponseHeader {
  const header = { ...emptyHeader };
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) header.cluster_id = reader.integer();
    else if (field === 2) header.member_id = reader.integer();
    else if (field === 3) header.revision = reader.integer();
    else if (field === 4) header.raft_term = reader.integer();
    else reader.skip();
  }
  return header;
}

function readRange(reader: MessageReader, other: (field: number) => void): RangeAnswer {
  const kvs: IKeyValue[] = [];
  let more = false;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 2) kvs.push(readKeyValue(reader.message()));
    else if (field === 3) more = reader.integer() !== '0';
    else other(field);
  }
  return { kvs, more };
}

const nothing = Buffer.alloc(0);

function readKeyValue(reader: MessageReader): IKeyValue {
  const entry: IKeyValue = {
    key: nothing,
    create_revision: '0',
    mod_revision: '0',
    version: '0',
    value: nothing,
    lease: '0',
  };
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) entry.key = reader.bytes();
    else if (field === 2) entry.create_revision = reader.integer();
    else if (field === 3) entry.mod_revision = reader.integer();
    else if (field === 4) entry.version = reader.integer();
    else if (field === 5) entry.value = reader.bytes();
    else if (field === 6) entry.lease = reader.integer();
    else reader.skip();
  }
  return entry;
}

function readOperation(reader: MessageReader): OperationAnswer {
  let answer: OperationAnswer = {};
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      const range = reader.message();
      answer = { response_range: readRange(range, () => range.skip()) };
    } else if (field === 3) {
      answer = { response_delete_range: { deleted: readDeleted(reader.message()) } };
    } else reader.skip();
  }
  return answer;
}

function readDeleted(reader: MessageReader): string {
  let deleted = '0';
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 2) deleted = reader.integer();
    else reader.skip();
  }
  return deleted;
}
