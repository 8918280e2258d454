import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  capabilities,
  chunkSizes,
  collect,
  hostilePackets,
  lineText,
  oid,
  onlyWireErrors,
  readerOf,
  record,
  refName,
} from './arbitraries.js';
import { CommandListReader, writeCommandList } from './command-list.js';
import { pktText } from './pkt-line.js';
import { readStatusReport, writeStatusReport, type RefReport } from './report-status.js';

const limits = { maxCommands: 8, maxShallow: 2, maxPushOptions: 3, maxPushOptionBytes: 200 };
const command = record({ oldOid: oid, newOid: oid, ref: refName });

test('a push round-trips, and the pack after it is left alone', async () => {
  const list = record({
    commands: fc.array(command, { minLength: 1, maxLength: 8 }),
    capabilities,
    shallow: fc.array(oid, { maxLength: 2 }),
  });
  const options = fc.option(fc.array(lineText, { maxLength: 3 }));
  await fc.assert(
    fc.asyncProperty(list, options, chunkSizes, async (list, options, sizes) => {
      const negotiated =
        options === null
          ? list
          : { ...list, capabilities: [...list.capabilities, { name: 'push-options' }] };
      const bytes = writeCommandList(negotiated, options ?? undefined);
      const packets = readerOf(Buffer.from(`${bytes}PACK...`), sizes);
      const reader = new CommandListReader(packets, limits);
      assert.deepEqual(await reader.readCommands(), negotiated);
      assert.deepEqual(await reader.readPushOptions(), options ?? []);
      assert.equal((await collect(packets.rest())).toString(), 'PACK...');
    }),
  );
});

const id = 'a'.repeat(40);
const line = `${id} ${id} refs/heads/x`;
const refused = [
  { desc: 'two ids and no name', text: pktText(`${id} ${id}`), kind: 'malformed' },
  { desc: 'a bad id', text: pktText(`${id} zzz refs/heads/x`), kind: 'malformed' },
  { desc: 'a delim', text: '0001', kind: 'malformed' },
  { desc: 'a cut list', text: pktText(line), kind: 'truncated' },
  { desc: 'a signed push', text: pktText('push-cert\0atomic\n'), kind: 'unsupported' },
  { desc: 'more commands than allowed', text: pktText(line).repeat(9), kind: 'too-large' },
  { desc: 'more shallow lines', text: pktText(`shallow ${id}`).repeat(3), kind: 'too-large' },
];

for (const { desc, text, kind } of refused) {
  test(`refused: ${desc}`, async () => {
    const reader = new CommandListReader(readerOf(text), limits);
    await assert.rejects(reader.readCommands(), { kind });
  });
}

test('capabilities stay readable when a later line is bad', async () => {
  const text = `${pktText(`${line}\0 side-band-64k`)}${pktText('nonsense')}`;
  const reader = new CommandListReader(readerOf(text), limits);
  await assert.rejects(reader.readCommands(), { kind: 'malformed' });
  assert.deepEqual(reader.capabilities, [{ name: 'side-band-64k' }]);
});

test('push options are counted, and measured', async () => {
  const head = writeCommandList({
    commands: [{ oldOid: id, newOid: id, ref: 'refs/heads/x' }],
    capabilities: [{ name: 'push-options' }],
    shallow: [],
  });
  for (const options of [['a', 'b', 'c', 'd'], ['x'.repeat(201)]]) {
    const reader = new CommandListReader(
      readerOf(`${head}${options.map(pktText).join('')}0000`),
      limits,
    );
    await reader.readCommands();
    await assert.rejects(reader.readPushOptions(), { kind: 'too-large' });
  }
});

test('reports round-trip; version 1 leaves the options out', async () => {
  const entry: fc.Arbitrary<RefReport> = fc.oneof(
    record({ ref: refName, status: fc.constant('ok' as const) }),
    record({
      ref: refName,
      status: fc.constant('ok' as const),
      options: record({ oldOid: oid, forcedUpdate: fc.constant(true as const) }),
    }),
    record({
      ref: refName,
      status: fc.constant('ng' as const),
      reason: fc.stringMatching(/^[a-z][a-z ]{0,30}[a-z]$/),
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(entry), async (refs) => {
      const report = { unpack: 'ok', refs };
      const second = await readStatusReport(readerOf(writeStatusReport(report, 2)));
      assert.deepEqual(second, report);
      const first = await readStatusReport(readerOf(writeStatusReport(report, 1)));
      const plain = refs.map((entry) =>
        entry.status === 'ok' ? { ref: entry.ref, status: entry.status } : entry,
      );
      assert.deepEqual(first.refs, plain);
    }),
  );
});

test('a reason cannot forge another line, nor break the framing by its length', async () => {
  const reason = `no\nok refs/heads/forged\0${'x'.repeat(70_000)}`;
  const refs = [{ ref: 'refs/heads/x', status: 'ng', reason }] as const;
  const report = await readStatusReport(
    readerOf(writeStatusReport({ unpack: `bad\n${reason}`, refs }, 2)),
  );
  assert.equal(report.refs.length, 1);
  assert.equal(report.refs[0]?.status, 'ng');
});

test('hostile pushes and reports give a WireError at worst', async () => {
  await fc.assert(
    fc.asyncProperty(hostilePackets, async (bytes) => {
      await onlyWireErrors(() => readStatusReport(readerOf(bytes)));
      await onlyWireErrors(async () => {
        const reader = new CommandListReader(readerOf(bytes), limits);
        await reader.readCommands();
        await reader.readPushOptions();
      });
    }),
  );
});
