import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  capabilities,
  chunkSizes,
  hostilePackets,
  oid,
  onlyWireErrors,
  readerOf,
  record,
  refName,
} from './arbitraries.js';
import { writeErrorPkt } from './pkt-line.js';
import { readRefAdvertisement, writeRefAdvertisement } from './ref-advertisement.js';
import { readV2Capabilities, writeV2Capabilities } from './v2-capabilities.js';

const zero = '0'.repeat(40);
const ref = fc
  .tuple(fc.oneof(refName, fc.constant('HEAD')), oid, fc.option(oid))
  .map(([name, oid, peeled]) => (peeled === null ? { name, oid } : { name, oid, peeled }));

test('v0 and v1 advertisements round-trip, empty ones too', async () => {
  const advertisement = record({
    version: fc.constantFrom(0 as const, 1 as const),
    capabilities,
    refs: fc.array(ref, { maxLength: 6 }),
    shallow: fc.array(oid, { maxLength: 2 }),
  });
  await fc.assert(
    fc.asyncProperty(advertisement, chunkSizes, async (advertisement, sizes) => {
      const bytes = Buffer.from(writeRefAdvertisement(advertisement, zero));
      assert.deepEqual(await readRefAdvertisement(readerOf(bytes, sizes)), advertisement);
    }),
  );
});

test('an empty repository is told with capabilities^{}', () => {
  const empty = { version: 0, capabilities: [{ name: 'atomic' }], refs: [], shallow: [] } as const;
  assert.equal(writeRefAdvertisement(empty, zero), `0044${zero} capabilities^{}\0atomic\n0000`);
});

test('v2 advertisements round-trip', async () => {
  await fc.assert(
    fc.asyncProperty(capabilities, chunkSizes, async (list, sizes) => {
      const bytes = Buffer.from(writeV2Capabilities(list));
      assert.deepEqual(await readV2Capabilities(readerOf(bytes, sizes)), list);
    }),
  );
});

test('an ERR packet in place of an advertisement is told', async () => {
  for (const read of [readRefAdvertisement, readV2Capabilities]) {
    await assert.rejects(read(readerOf(writeErrorPkt('gone'))), {
      kind: 'unsupported',
      message: 'gone',
    });
  }
});

test('hostile advertisements give a WireError at worst', async () => {
  await fc.assert(
    fc.asyncProperty(hostilePackets, async (bytes) => {
      await onlyWireErrors(() => readRefAdvertisement(readerOf(bytes)));
      await onlyWireErrors(() => readV2Capabilities(readerOf(bytes)));
    }),
  );
});
