import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  chunked,
  chunkSizes,
  collect,
  hostilePackets,
  onlyWireErrors,
  readerOf,
} from './arbitraries.js';
import {
  delimPkt,
  flushPkt,
  maxPktPayloadBytes,
  parseErrorPkt,
  parsePktText,
  PktReader,
  pktText,
  responseEndPkt,
  writeErrorPkt,
  writePkt,
  type Pkt,
} from './pkt-line.js';
import { WireError } from './wire-error.js';

const anyPkt: fc.Arbitrary<Pkt> = fc.oneof(
  fc.constantFrom<Pkt>({ type: 'flush' }, { type: 'delim' }, { type: 'response-end' }),
  fc
    .uint8Array({ maxLength: 2000 })
    .map((bytes): Pkt => ({ type: 'data', payload: Buffer.from(bytes) })),
);

function write(pkt: Pkt): Buffer {
  switch (pkt.type) {
    case 'data':
      return writePkt(pkt.payload);
    case 'flush':
      return flushPkt;
    case 'delim':
      return delimPkt;
    case 'response-end':
      return responseEndPkt;
  }
}

test('packets come out as they went in, however the stream is cut', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyPkt, { maxLength: 12 }), chunkSizes, async (pkts, sizes) => {
      const reader = readerOf(Buffer.concat(pkts.map(write)), sizes);
      for (const pkt of pkts) assert.deepEqual(await reader.read(), pkt);
      assert.equal(await reader.read(), undefined);
    }),
  );
});

test('what follows the last packet read is handed over untouched', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyPkt, { maxLength: 5 }),
      fc.uint8Array({ maxLength: 3000 }),
      chunkSizes,
      async (pkts, tail, sizes) => {
        const head = Buffer.concat(pkts.map(write));
        const reader = readerOf(Buffer.concat([head, tail]), sizes);
        reader.record();
        for (const _ of pkts) await reader.read();
        assert.deepEqual(reader.takeRecorded(), head);
        assert.deepEqual(await collect(reader.rest()), Buffer.from(tail));
      },
    ),
  );
});

test('the rest is taken at once where it is known that nothing more will come', async () => {
  const iterator = chunked(Buffer.from('0006xyrest'), [100])[Symbol.asyncIterator]();
  const source = { spent: false, [Symbol.asyncIterator]: () => iterator };
  const reader = new PktReader(source);
  assert.equal((await reader.read())?.type, 'data');
  assert.equal(reader.takeRest(), undefined);
  source.spent = true;
  assert.equal(reader.takeRest()?.toString(), 'rest');
  assert.equal(reader.takeRest()?.length, 0);
});

test('hostile bytes give packets or a WireError, nothing else', async () => {
  await fc.assert(
    fc.asyncProperty(hostilePackets, chunkSizes, async (bytes, sizes) => {
      await onlyWireErrors(async () => {
        const reader = readerOf(bytes, sizes);
        while ((await reader.read()) !== undefined);
      });
    }),
  );
});

const broken = [
  { desc: 'not hexadecimal', bytes: '00g0rest', kind: 'malformed' },
  { desc: 'a sign is no digit', bytes: '-001rest', kind: 'malformed' },
  { desc: 'length 3', bytes: '0003', kind: 'malformed' },
  { desc: 'longer than any packet', bytes: 'fff1', kind: 'malformed' },
  { desc: 'cut inside the length', bytes: '00', kind: 'truncated' },
  { desc: 'cut inside the payload', bytes: '0008abc', kind: 'truncated' },
];

for (const { desc, bytes, kind } of broken) {
  test(`refused: ${desc}`, async () => {
    await assert.rejects(readerOf(bytes).read(), (error) => {
      return error instanceof WireError && error.kind === kind;
    });
  });
}

test('a section longer than its bound is refused before its bytes are awaited', async () => {
  const never = new PktReader(
    (async function* () {
      yield Buffer.from('0010');
      throw new Error('the payload was awaited');
    })(),
  );
  never.limit(8);
  await assert.rejects(never.read(), { name: 'WireError', kind: 'too-large' });
});

test('the largest packet passes', async () => {
  const payload = Buffer.alloc(maxPktPayloadBytes, 7);
  const reader = new PktReader(chunked(writePkt(payload), [1, 4096]));
  assert.deepEqual(await reader.read(), { type: 'data', payload });
  assert.throws(() => writePkt(Buffer.alloc(maxPktPayloadBytes + 1)), RangeError);
});

test('text packets count bytes, lose one line feed, and are UTF-8 or refused', () => {
  assert.equal(pktText('é\n'), '0007é\n');
  assert.equal(parsePktText(Buffer.from('a\n\n')), 'a\n');
  assert.throws(() => parsePktText(Buffer.from([0x72, 0xff])), { kind: 'malformed' });
});

test('ERR packets round-trip and are bounded', () => {
  assert.equal(parseErrorPkt(writeErrorPkt('no such thing').subarray(4)), 'no such thing');
  assert.equal(parseErrorPkt(Buffer.from('ERROR')), undefined);
  assert.ok(writeErrorPkt('x'.repeat(70_000)).length < 1100);
});
