import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import {
  capabilities,
  chunkSizes,
  hostilePackets,
  lineText,
  oid,
  onlyWireErrors,
  readerOf,
  record,
  refName,
} from './arbitraries.js';
import {
  fetchFlags,
  parseFetchArguments,
  readUploadRequest,
  writeFetchArguments,
  writeUploadRequest,
  type FetchScope,
} from './fetch-request.js';
import {
  parseLsRefsArguments,
  readLsRefsResponse,
  writeLsRefsArguments,
  writeLsRefsLine,
  type LsRefsLine,
} from './ls-refs.js';
import {
  parseObjectInfoArguments,
  readObjectInfo,
  writeObjectInfo,
  writeObjectInfoArguments,
} from './object-info.js';
import { readCommandRequest, writeCommandRequest } from './v2-request.js';

const depth: fc.Arbitrary<Partial<FetchScope>> = fc.oneof(
  fc.constant({}),
  record({ depth: fc.integer({ min: 1, max: 0x7fff_ffff }) }),
  record({
    deepenSince: fc.integer({ min: 1 }),
    deepenNot: fc.array(refName, { maxLength: 2 }),
  }),
);
const scope: fc.Arbitrary<FetchScope> = fc
  .tuple(fc.array(oid, { minLength: 1, maxLength: 4 }), fc.array(oid, { maxLength: 3 }), depth)
  .chain(([wants, shallow, depth]) =>
    fc
      .constantFrom({}, { filter: 'blob:none' }, { filter: 'combine:tree:1+blob:none' })
      .map((filter) => ({ wants, shallow, deepenNot: [], ...depth, ...filter })),
  );

test('v2 command requests round-trip', async () => {
  const request = record({
    command: fc.constantFrom('ls-refs', 'fetch', 'object-info'),
    capabilities,
    args: fc.array(lineText, { maxLength: 6 }),
  });
  await fc.assert(
    fc.asyncProperty(request, chunkSizes, async (request, sizes) => {
      const reader = readerOf(Buffer.from(writeCommandRequest(request)), sizes);
      assert.deepEqual(await readCommandRequest(reader), request);
      assert.equal(await readCommandRequest(reader), undefined);
    }),
  );
});

test('fetch arguments round-trip', () => {
  const request = fc
    .tuple(scope, fc.array(refName), fc.array(oid), fc.subarray([...fetchFlags]))
    .map(([scope, wantRefs, haves, flags]) => ({
      ...scope,
      wantRefs,
      haves,
      flags: new Set(flags),
    }));
  fc.assert(
    fc.property(request, (request) => {
      assert.deepEqual(parseFetchArguments(writeFetchArguments(request)), request);
    }),
  );
});

test('the want section of v0 round-trips and leaves the haves', async () => {
  await fc.assert(
    fc.asyncProperty(scope, capabilities, chunkSizes, async (scope, capabilities, sizes) => {
      const request = { ...scope, capabilities };
      const bytes = Buffer.from(`${writeUploadRequest(request)}0009done\n`);
      const reader = readerOf(bytes, sizes);
      assert.deepEqual(await readUploadRequest(reader), request);
      const next = await reader.read();
      assert.equal(next?.type === 'data' && next.payload.toString(), 'done\n');
    }),
  );
});

test('a client that wants nothing says so by a flush or by leaving', async () => {
  assert.equal(await readUploadRequest(readerOf('0000')), undefined);
  assert.equal(await readUploadRequest(readerOf('')), undefined);
  assert.equal(await readCommandRequest(readerOf('0000')), undefined);
});

const refusedArguments = [
  { desc: 'an unknown word', args: ['frobnicate'] },
  { desc: 'a want that is no id', args: ['want main'] },
  { desc: 'a short id', args: ['want abc'] },
  { desc: 'upper case', args: [`want ${'A'.repeat(40)}`] },
  { desc: 'a depth of nothing', args: ['deepen 0'] },
  { desc: 'a negative depth', args: ['deepen -1'] },
  { desc: 'a depth beyond int', args: ['deepen 99999999999'] },
  { desc: 'a depth and a date', args: ['deepen 1', 'deepen-since 1700000000'] },
  { desc: 'packfile-uris, which are not offered', args: ['packfile-uris https'] },
  { desc: 'an empty want-ref', args: ['want-ref '] },
];

for (const { desc, args } of refusedArguments) {
  test(`fetch refuses ${desc}`, () => {
    assert.throws(() => parseFetchArguments(args), { kind: 'malformed' });
  });
}

test('a filter without end is refused', () => {
  assert.throws(() => parseFetchArguments([`filter ${'x'.repeat(5000)}`]), { kind: 'too-large' });
});

test('ls-refs arguments and lines round-trip', async () => {
  const request = record({
    peel: fc.boolean(),
    symrefs: fc.boolean(),
    unborn: fc.boolean(),
    prefixes: fc.array(lineText, { maxLength: 4 }),
  });
  const line: fc.Arbitrary<LsRefsLine> = fc.oneof(
    record({ name: refName, oid }),
    record({ name: refName, oid, peeled: oid }),
    record({ name: fc.constant('HEAD'), oid, symrefTarget: refName }),
    record({ name: fc.constant('HEAD'), symrefTarget: refName }),
  );
  await fc.assert(
    fc.asyncProperty(request, fc.array(line), async (request, lines) => {
      assert.deepEqual(parseLsRefsArguments(writeLsRefsArguments(request)), request);
      const bytes = Buffer.from(`${lines.map(writeLsRefsLine).join('')}0000`);
      assert.deepEqual(await readLsRefsResponse(readerOf(bytes)), lines);
    }),
  );
});

test('too many prefixes mean every ref, as in git', () => {
  const args = Array.from({ length: 65_537 }, (_, index) => `ref-prefix refs/heads/${index}`);
  assert.deepEqual(parseLsRefsArguments(args).prefixes, []);
});

test('object-info round-trips and is bounded', async () => {
  const objects = fc.array(record({ oid, sizeBytes: fc.option(fc.nat(), { nil: undefined }) }));
  await fc.assert(
    fc.asyncProperty(objects, async (objects) => {
      const request = { size: true, oids: objects.map(({ oid }) => oid) };
      assert.deepEqual(parseObjectInfoArguments(writeObjectInfoArguments(request), 100), request);
      assert.deepEqual(await readObjectInfo(readerOf(writeObjectInfo(objects))), objects);
    }),
  );
  const args = Array.from({ length: 3 }, () => `oid ${'a'.repeat(40)}`);
  assert.throws(() => parseObjectInfoArguments(args, 2), { kind: 'too-large' });
});

test('hostile requests give a WireError at worst', async () => {
  await fc.assert(
    fc.asyncProperty(hostilePackets, fc.array(lineText), async (bytes, args) => {
      await onlyWireErrors(() => readCommandRequest(readerOf(bytes)));
      await onlyWireErrors(() => readUploadRequest(readerOf(bytes)));
      await onlyWireErrors(() => readLsRefsResponse(readerOf(bytes)));
      await onlyWireErrors(() => readObjectInfo(readerOf(bytes)));
      await onlyWireErrors(() => parseFetchArguments(args));
      await onlyWireErrors(() => parseLsRefsArguments(args));
      await onlyWireErrors(() => parseObjectInfoArguments(args, 10));
    }),
  );
});
