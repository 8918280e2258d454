import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { readerOf } from './arbitraries.js';
import { maxPktBytes } from './pkt-line.js';
import {
  keepAlivePkt,
  maxSideBandDataBytes,
  parseSideBand,
  writeSideBand,
  type Band,
} from './side-band.js';

async function demultiplex(bytes: Buffer): Promise<{ bands: Set<Band>; data: Buffer }> {
  const reader = readerOf(bytes);
  const bands = new Set<Band>();
  const parts: Buffer[] = [];
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined) return { bands, data: Buffer.concat(parts) };
    assert.equal(pkt.type, 'data');
    if (pkt.type !== 'data') continue;
    assert.ok(pkt.payload.length + 4 <= maxPktBytes);
    const { band, data } = parseSideBand(pkt.payload);
    bands.add(band);
    parts.push(data);
  }
}

test('data of any length survives, in packets of legal size', async () => {
  const sizes = fc.oneof(
    fc.integer({ min: 0, max: 300 }),
    fc.constantFrom(maxSideBandDataBytes - 1, maxSideBandDataBytes, maxSideBandDataBytes + 1),
    fc.constant(3 * maxSideBandDataBytes + 5),
  );
  await fc.assert(
    fc.asyncProperty(sizes, fc.constantFrom<Band>(1, 2, 3), async (size, band) => {
      const data = Buffer.alloc(size, 'quorate');
      const read = await demultiplex(writeSideBand(band, data));
      assert.deepEqual(read.data, data);
      assert.deepEqual([...read.bands], size === 0 ? [] : [band]);
    }),
    { numRuns: 50 },
  );
});

test('a keep-alive is an empty packet on band 1', async () => {
  const { bands, data } = await demultiplex(keepAlivePkt);
  assert.deepEqual([...bands], [1]);
  assert.equal(data.length, 0);
});

test('other bands and empty payloads are refused', () => {
  for (const payload of ['', '\x00x', '\x04x', 'ERR x']) {
    assert.throws(() => parseSideBand(Buffer.from(payload, 'latin1')), { kind: 'malformed' });
  }
});
