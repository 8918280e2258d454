import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IRangeRequest, IRangeResponse, IResponseHeader, ITxnRequest } from 'etcd3';
import { QuorateError } from '../../contract/errors.js';
import { type Asking, ReadBatches, type ReadAnswer } from './read-batches.js';

const header: IResponseHeader = { cluster_id: '1', member_id: '1', revision: '7', raft_term: '1' };

/** Answers each range with its own key, unless that is refused. */
class FakeEtcd implements Asking {
  /** Keys of each request. */
  readonly requests: string[][] = [];
  readonly #refused: string | undefined;

  constructor(refused?: string) {
    this.#refused = refused;
  }

  async range(range: IRangeRequest): Promise<IRangeResponse> {
    const [answer] = this.#answer([range]);
    assert.ok(answer !== undefined);
    return answer;
  }

  async txn({ success = [] }: ITxnRequest): ReturnType<Asking['txn']> {
    const ranges = success.flatMap((one) => one.request_range ?? []);
    return {
      header,
      responses: this.#answer(ranges).map((one) => ({ response_range: one })),
    };
  }

  #answer(ranges: readonly IRangeRequest[]): readonly IRangeResponse[] {
    const keys = ranges.map(({ key }) => String(key));
    this.requests.push(keys);
    if (this.#refused !== undefined && keys.includes(this.#refused)) {
      throw new QuorateError('invalid-argument', 'refused');
    }
    return keys.map((key) => {
      const kv = { key: Buffer.from(key), value: Buffer.from(`of ${key}`) };
      return { header, kvs: [{ ...kv, ...revisions }], more: false, count: '1' };
    });
  }
}

const revisions = { create_revision: '1', mod_revision: '1', version: '1', lease: '0' };
const range = (key: string, end?: string): IRangeRequest => ({
  key: Buffer.from(key),
  ...(end === undefined ? {} : { range_end: Buffer.from(end) }),
});
const valuesOf = ({ ranges }: ReadAnswer): readonly string[] =>
  ranges.flatMap(({ kvs }) => kvs.map(({ value }) => String(value)));

test('reads of one turn are one request, in which nothing is asked for twice', async () => {
  const etcd = new FakeEtcd();
  const reads = new ReadBatches(etcd);
  const answers = await Promise.all([
    reads.read([range('a')]),
    reads.read([range('b'), range('a')]),
    reads.read([range('a', 'z')]),
    Promise.resolve().then(() => reads.read([range('c')])),
  ]);
  assert.deepEqual(answers.map(valuesOf), [['of a'], ['of b', 'of a'], ['of a'], ['of c']]);
  assert.ok(answers.every((answer) => answer.header.revision === '7'));
  assert.deepEqual(etcd.requests, [['a', 'b', 'a', 'c']]);
});

test('nothing joins a request that is out already', async () => {
  const etcd = new FakeEtcd();
  const reads = new ReadBatches(etcd);
  const first = reads.read([range('a')]);
  await new Promise(setImmediate);
  await Promise.all([first, reads.read([range('a')])]);
  assert.deepEqual(etcd.requests, [['a'], ['a']]);
});

test('many reads go in requests that etcd takes', async () => {
  const etcd = new FakeEtcd();
  const reads = new ReadBatches(etcd);
  const keys = Array.from({ length: 300 }, (_, n) => `k${n}`);
  const answers = await Promise.all(keys.map((key) => reads.read([range(key)])));
  assert.deepEqual(
    answers.flatMap(valuesOf),
    keys.map((key) => `of ${key}`),
  );
  assert.ok(etcd.requests.every(({ length }) => length <= 128));
  assert.equal(etcd.requests.length, 3);
});

test('what is refused one read fails no other', async () => {
  const etcd = new FakeEtcd('forbidden');
  const reads = new ReadBatches(etcd);
  const [good, bad] = await Promise.allSettled([
    reads.read([range('a')]),
    reads.read([range('forbidden')]),
  ]);
  assert.equal(good.status, 'fulfilled');
  assert.equal(bad.status, 'rejected');
});
