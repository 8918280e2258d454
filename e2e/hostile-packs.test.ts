import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { deflateSync } from 'node:zlib';
import {
  buildPack,
  copyDelta,
  objectId,
  sealPack,
  treeOf,
} from '../backends/git/testing/build-pack.js';
import type { PackEntry } from '../backends/git/testing/build-pack.js';
import { HostileGround } from './hostile-ground.js';

const blob = Buffer.from('blob\n');
const tree = treeOf([['100644', 'file', objectId('blob', blob)]]);
const commit = Buffer.from(
  `tree ${objectId('tree', tree)}\nauthor A <a@example.org> 1 +0000\ncommitter A <a@example.org> 1 +0000\n\nx\n`,
);
const tip = objectId('commit', commit);
const honest: readonly PackEntry[] = [
  { type: 'commit', content: commit },
  { type: 'tree', content: tree },
  { type: 'blob', content: blob },
];
const good = buildPack(honest);
/** Random-looking and the same every time, so that it neither deflates nor changes. */
const ballast = Buffer.from(Array.from({ length: 4000 }, (_, n) => (n * n * 31 + n * 7) % 251));

/** No object has these ids: a true cycle would need two hashes that name each other. */
const cycle = { a: 'a'.repeat(40), b: 'b'.repeat(40) };

interface LyingPack {
  readonly desc: string;
  readonly pack: Buffer;
  /** Default refs/heads/evil at the honest commit. */
  readonly newOid?: string;
}

/** Every one is refused as a whole: `unpack` says why, and no ref is made. */
const lies: readonly LyingPack[] = [
  { desc: 'no pack', pack: Buffer.alloc(0) },
  { desc: 'a header alone', pack: good.subarray(0, 12) },
  { desc: 'half a header', pack: good.subarray(0, 7) },
  {
    desc: 'another magic',
    pack: sealPack(Buffer.concat([Buffer.from('KCAP'), good.subarray(4, -20)])),
  },
  { desc: 'version 1', pack: buildPack(honest, { version: 1 }) },
  { desc: 'version 4', pack: buildPack(honest, { version: 4 }) },
  { desc: 'a count that is too high', pack: buildPack(honest, { count: 4 }) },
  { desc: 'a count that is too low', pack: buildPack(honest, { count: 2 }) },
  { desc: 'a count of 4 billion', pack: buildPack(honest, { count: 0xffff_ffff }) },
  { desc: 'a count of 0', pack: buildPack(honest, { count: 0 }) },
  {
    desc: 'a wrong checksum',
    pack: Buffer.concat([good.subarray(0, -1), Buffer.from([(good.at(-1) ?? 0) ^ 1])]),
  },
  { desc: 'no checksum', pack: good.subarray(0, -20) },
  { desc: 'half a checksum', pack: good.subarray(0, -10) },
  { desc: 'an end in the middle of an object', pack: good.subarray(0, 40) },
  {
    desc: 'bytes hidden before the checksum',
    pack: sealPack(Buffer.concat([good.subarray(0, -20), ballast])),
  },
  { desc: 'bytes behind the checksum', pack: Buffer.concat([good, ballast]) },
  { desc: 'a second pack behind it', pack: Buffer.concat([good, good]) },
  { desc: 'one flipped bit', pack: sealPack(flip(good.subarray(0, -20), 20)) },
  {
    desc: 'noise instead of zlib',
    pack: sealPack(Buffer.concat([packHeader(1), Buffer.from([0xb5, 0xfa, 0x01]), ballast])),
  },
  { desc: 'an object of type 0', pack: withEntry(0x05, deflateSync(blob)) },
  { desc: 'an object of type 5', pack: withEntry(0x55, deflateSync(blob)) },
  {
    desc: 'a size smaller than the content',
    pack: buildPack([...honest, { type: 'blob', content: ballast, declaredBytes: 10 }]),
  },
  {
    desc: 'a size larger than the content',
    pack: buildPack([...honest, { type: 'blob', content: ballast, declaredBytes: 5_000 }]),
  },
  {
    desc: 'a size of 2^63',
    pack: buildPack([...honest, { type: 'blob', content: blob, declaredBytes: 2 ** 63 }]),
  },
  {
    desc: 'a size without end',
    pack: sealPack(Buffer.concat([packHeader(1), Buffer.alloc(4000, 0xff)])),
  },
  {
    desc: 'a delta of itself',
    pack: buildPack([...honest, { type: 'ofs-delta', distance: 0, delta: delta() }]),
  },
  {
    desc: 'a delta of what is before the pack',
    pack: buildPack([...honest, { type: 'ofs-delta', distance: 1_000_000, delta: delta() }]),
  },
  {
    desc: 'a delta of the header',
    pack: buildPack([...honest, { type: 'ofs-delta', distance: offsetOfEnd(), delta: delta() }]),
  },
  {
    desc: 'a delta of the middle of an object',
    pack: buildPack([...honest, { type: 'ofs-delta', distance: 3, delta: delta() }]),
  },
  {
    desc: 'a distance without end',
    pack: sealPack(Buffer.concat([packHeader(1), Buffer.from([0x65]), Buffer.alloc(4000, 0xff)])),
  },
  {
    desc: 'a delta of an object that is nowhere',
    pack: buildPack([...honest, { type: 'ref-delta', base: '1'.repeat(40), delta: delta() }]),
  },
  {
    desc: 'two deltas of each other',
    pack: buildPack([
      ...honest,
      { type: 'ref-delta', base: cycle.a, delta: delta() },
      { type: 'ref-delta', base: cycle.b, delta: delta() },
    ]),
  },
  {
    desc: 'a delta whose result is its own base',
    pack: buildPack([
      ...honest,
      {
        type: 'ref-delta',
        base: objectId('blob', ballast),
        delta: copyDelta({ baseBytes: 4000, resultBytes: 4000, copyBytes: 4000, times: 1 }),
      },
    ]),
  },
  { desc: 'a delta that says another base size', pack: deltaPack({ baseBytes: 3999 }) },
  { desc: 'a delta that gives more than it says', pack: deltaPack({ times: 3 }) },
  { desc: 'a delta that gives less than it says', pack: deltaPack({ resultBytes: 100_000 }) },
  {
    desc: 'a delta that copies from behind its base',
    pack: deltaPack({ copyBytes: 5_000, resultBytes: 5_000, times: 1 }),
  },
  {
    desc: 'a delta with a reserved instruction',
    pack: withDelta(
      Buffer.concat([
        copyDelta({ baseBytes: 4000, resultBytes: 4000, copyBytes: 4000, times: 1 }),
        Buffer.from([0]),
      ]),
    ),
  },
  {
    desc: 'a delta cut inside an instruction',
    pack: withDelta(
      copyDelta({ baseBytes: 4000, resultBytes: 4000, copyBytes: 4000, times: 1 }).subarray(0, -1),
    ),
  },
  { desc: 'an empty delta', pack: withDelta(Buffer.alloc(0)) },
  { desc: 'a delta whose result is 2^62 bytes', pack: deltaPack({ resultBytes: 2 ** 62 }) },
];

/** Those whose end the server finds: it needs the checksum for that, or gives up before. */
const overSsh = new Set([
  'another magic',
  'a count that is too high',
  'bytes hidden before the checksum',
  'one flipped bit',
  'an object of type 0',
  'a delta of itself',
  'two deltas of each other',
  'a delta that gives more than it says',
]);

/** The objects are sound, and something is missing or wrong about the ref. */
const wrongTips = [
  {
    desc: 'a tip that is nowhere',
    newOid: '1'.repeat(40),
    pack: good,
    says: /missing|bad pack|no such/,
  },
  {
    desc: 'a commit without its tree',
    newOid: tip,
    pack: buildPack([{ type: 'commit', content: commit }]),
    says: /missing|unpacker error/,
  },
  {
    desc: 'a tree without its blob',
    newOid: tip,
    pack: buildPack(honest.slice(0, 2)),
    says: /missing|unpacker error/,
  },
  {
    desc: 'a branch on a blob',
    newOid: objectId('blob', blob),
    pack: good,
    says: /failed to update ref \(a branch takes commits only\)/,
  },
  {
    desc: 'a branch on a tree',
    newOid: objectId('tree', tree),
    pack: good,
    says: /failed to update ref \(a branch takes commits only\)/,
  },
] as const;

describe('packs that lie', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  for (const { desc, pack, newOid = tip } of lies) {
    test(`${desc}: refused as a whole`, async () => {
      const command = { ref: 'refs/heads/evil', newOid };
      const report = await ground.push([command], pack);
      assert.notEqual(report.unpack, 'ok');
      assert.deepEqual(report.refs, [{ ref: command.ref, status: 'ng', reason: 'unpacker error' }]);
      assertHarmless(report.unpack, ground);
      await ground.assertUnharmed();
    });
  }

  // Over SSH the stream goes on behind the pack, and the client waits for its report.
  for (const { desc, pack } of lies.filter(({ desc }) => overSsh.has(desc))) {
    test(`${desc}, over SSH: refused as a whole`, async () => {
      const report = await ground.pushOverSsh([{ ref: 'refs/heads/evil', newOid: tip }], pack);
      assert.notEqual(report.unpack, 'ok');
      await ground.assertUnharmed();
    });
  }

  for (const { desc, newOid, pack, says } of wrongTips) {
    test(`${desc}: the ref is refused`, async () => {
      const report = await ground.push([{ ref: 'refs/heads/evil', newOid }], pack);
      const [ref] = report.refs;
      assert.ok(ref?.status === 'ng', JSON.stringify(report));
      assert.match(`${report.unpack} ${ref.reason}`, says);
      await ground.assertUnharmed();
    });
  }

  test('a pack cut by the end of the connection over SSH changes nothing', async () => {
    const line = `${'0'.repeat(40)} ${tip} refs/heads/evil\0report-status`;
    const commands = `${(line.length + 4).toString(16).padStart(4, '0')}${line}0000`;
    const input = Buffer.concat([Buffer.from(commands), good.subarray(0, 60)]);
    await ground.ssh("git-receive-pack '/victim.git'", input);
    await ground.assertUnharmed();
  });
});

/** Nothing of the server's own is told: no paths. */
function assertHarmless(words: string, { scene }: HostileGround): void {
  assert.ok(!words.includes(scene.directory) && !/quarantine|\/store\//.test(words), words);
  assert.ok(words.length < 1_100, words);
}

function packHeader(count: number): Buffer {
  return buildPack([], { count }).subarray(0, 12);
}

function flip(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 0x10;
  return copy;
}

function withEntry(header: number, data: Buffer): Buffer {
  return sealPack(Buffer.concat([packHeader(1), Buffer.from([header]), data]));
}

function delta(): Buffer {
  return copyDelta({ baseBytes: 4000, resultBytes: 4000, copyBytes: 4000, times: 1 });
}

function offsetOfEnd(): number {
  return good.length - 20;
}

function withDelta(bytes: Buffer): Buffer {
  const base: PackEntry = { type: 'blob', content: ballast };
  return buildPack([
    ...honest,
    base,
    { type: 'ref-delta', base: objectId('blob', ballast), delta: bytes },
  ]);
}

function deltaPack(lie: {
  baseBytes?: number;
  resultBytes?: number;
  copyBytes?: number;
  times?: number;
}): Buffer {
  return withDelta(
    copyDelta({ baseBytes: 4000, resultBytes: 8000, copyBytes: 4000, times: 2, ...lie }),
  );
}
