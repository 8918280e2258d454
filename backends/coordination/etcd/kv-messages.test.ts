import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IRangeRequest, ITxnRequest } from 'etcd3';
import {
  decodeHeader,
  decodeMemberState,
  decodeRange,
  decodeTxn,
  encodeRange,
  encodeTxn,
} from './kv-messages.js';
import { MessageReader } from './protobuf.js';
import { methodOf } from './testing/etcd-messages.js';

const range = methodOf('etcdserverpb.KV', 'Range');
const txn = methodOf('etcdserverpb.KV', 'Txn');
const bytes = (text: string): Buffer => Buffer.from(text);
const header = {
  cluster_id: '17237436991929493444',
  member_id: '9372538179322589801',
  revision: '9007199254740991',
  raft_term: '3',
};
const entry = {
  key: bytes('k'),
  create_revision: '129',
  mod_revision: '16384',
  version: '1',
  value: Buffer.from([0, 255, 128]),
  lease: '9223372036854775807',
};

test('requests are what etcd reads', () => {
  const ranges: IRangeRequest[] = [
    { key: bytes('a') },
    { key: bytes('a'), range_end: bytes('b'), limit: '1000', keys_only: true },
    { key: bytes('ä'), revision: '4294967296', serializable: true, limit: 128 },
  ];
  for (const one of ranges) {
    const read = range.requestDeserialize(encodeRange(one));
    assert.deepEqual(read, range.requestDeserialize(range.requestSerialize(one)));
  }
  const requests: ITxnRequest[] = [
    {},
    {
      compare: [
        { result: 'Equal', target: 'Mod', key: bytes('head'), mod_revision: '12345678901' },
        { result: 'Greater', target: 'Create', key: bytes('x'), create_revision: '0' },
        { result: 'Less', target: 'Version', key: bytes('r/'), range_end: bytes('r0'), version: 7 },
        { result: 'NotEqual', target: 'Value', key: bytes('v'), value: Buffer.alloc(300, 1) },
      ],
      success: [
        { request_put: { key: bytes('p'), value: Buffer.alloc(20_000, 7), lease: entry.lease } },
        { request_delete_range: { key: bytes('d'), range_end: bytes('e') } },
        { request_range: { key: bytes('g'), limit: '1' } },
      ],
      failure: [{ request_range: { key: bytes('f') } }, { request_put: { key: bytes('q') } }],
    },
  ];
  for (const one of requests) {
    const read = txn.requestDeserialize(encodeTxn(one));
    assert.deepEqual(read, txn.requestDeserialize(txn.requestSerialize(one)));
  }
});

test('answers are read as etcd writes them', () => {
  const page = { header, kvs: [entry, { ...entry, lease: '0' }], more: true, count: '2' };
  assert.deepEqual(decodeRange(range.responseSerialize(page)), {
    header,
    kvs: page.kvs,
    more: true,
  });
  const answer = txn.responseSerialize({
    header,
    succeeded: true,
    responses: [
      { response_put: { header } },
      { response_delete_range: { header, deleted: '3', prev_kvs: [entry] } },
      { response_range: { header, kvs: [entry], more: false, count: '1' } },
    ],
  });
  assert.deepEqual(decodeTxn(answer), {
    header,
    succeeded: true,
    responses: [
      {},
      { response_delete_range: { deleted: '3' } },
      { response_range: { kvs: [entry], more: false } },
    ],
  });
  const status = methodOf('etcdserverpb.Maintenance', 'Status');
  const told = status.responseSerialize({ header, version: '3.5.0', dbSize: '5', leader: '8' });
  assert.deepEqual(decodeHeader(told), { header });
});

test('what a member says of itself is what etcd writes', () => {
  const status = methodOf('etcdserverpb.Maintenance', 'Status');
  const told = status.responseSerialize({
    header,
    version: '3.5.0',
    leader: '8',
    errors: ['a', 'b'],
  });
  const memberId = header.member_id;
  assert.deepEqual(decodeMemberState(told), { memberId, leaderId: '8', errors: ['a', 'b'] });
  assert.equal(decodeMemberState(status.responseSerialize({ header })).leaderId, '0');
});

test('what has not been asked for is left out, and what is no message is refused', () => {
  // Fields of every type that there is, with a number that nobody knows.
  const unknown = [0xf8, 0x07, 1, 0xf9, 0x07, ...Array<number>(8).fill(0), 0xfa, 0x07, 1, 9];
  const read = decodeRange(Buffer.from([...unknown, 0xfd, 0x07, 0, 0, 0, 0]));
  assert.deepEqual(read.kvs, []);
  const whole = range.responseSerialize({ header, kvs: [entry], more: false, count: '1' });
  // etcd's header, which comes first, is not cut by itself where it ends.
  for (let cut = 1; cut < whole.length; cut += 1) {
    const part = whole.subarray(0, cut);
    try {
      decodeRange(part);
    } catch (error) {
      assert.match(String(error), /cut/);
      continue;
    }
    const reader = new MessageReader(part);
    while (reader.next() !== 0) reader.skip();
  }
  for (const nonsense of [[0x0b], [0x12, 0xff], [0x00], [0x08, ...Array<number>(10).fill(0xff)]]) {
    assert.throws(() => decodeRange(Buffer.from(nonsense)));
  }
});
