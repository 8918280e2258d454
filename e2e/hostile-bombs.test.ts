import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createGzip, deflateRawSync, constants } from 'node:zlib';
import { buildPack, copyDelta, objectId } from '../backends/git/testing/build-pack.js';
import { createHash } from 'node:crypto';
import { commandSection, HostileGround } from './hostile-ground.js';
import { watchMemory } from './memory.js';

const mib = 1024 ** 2;
const gib = 1024 ** 3;

describe('small requests that want to become large', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  const peakOf = async (attack: () => Promise<unknown>): Promise<{ node: number; git: number }> => {
    const watch = watchMemory(ground.server.pid);
    try {
      await attack();
    } finally {
      await watch.stop();
    }
    const peak = await watch.stop();
    return { node: Math.round(peak.nodeBytes / mib), git: Math.round(peak.otherBytes / mib) };
  };
  const push = async (pack: Buffer) => {
    const r = await ground.push([{ ref: 'refs/heads/evil', newOid: '1'.repeat(40) }], pack);
    console.log(JSON.stringify(r));
  };

  const bombs = [
    { desc: 'blob 1.9g', pack: () => zerosPack(1900 * mib) },
    { desc: 'blob 3g', pack: () => zerosPack(3 * gib) },
    { desc: 'tree 1.9g', pack: () => zerosPack(1900 * mib, 2) },
    { desc: 'commit 1.9g', pack: () => zerosPack(1900 * mib, 1) },
    { desc: 'tree 300m', pack: () => zerosPack(300 * mib, 2) },
    { desc: 'delta 16m -> 1.9g', pack: () => deltaBomb(16 * mib-1, 120) },
    { desc: 'delta 16m -> 3.2g', pack: () => deltaBomb(16 * mib-1, 200) },
    { desc: 'delta 16m -> 320m x 6', pack: () => deltaBomb(16 * mib-1, 20, 6) },
    { desc: '100 delta 16m', pack: () => deltaBomb(16 * mib-1, 6, 100) },
  ];
  for (const { desc, pack } of bombs) {
    test(desc, async () => {
      const bytes = pack();
      const t = performance.now();
      console.log(desc, bytes.length, JSON.stringify(await peakOf(() => push(bytes))), Math.round(performance.now() - t));
      await ground.assertUnharmed();
    });
  }
});

/** A pack of one object of zeros, made without deflating them: a flushed block of a mebibyte, repeated. */
function zerosPack(sizeBytes: number, type = 3): Buffer {
  const bytes = [(type << 4) | (sizeBytes % 16)];
  let rest = Math.floor(sizeBytes / 16);
  while (rest > 0) {
    bytes[bytes.length - 1]! |= 0x80;
    bytes.push(rest % 128);
    rest = Math.floor(rest / 128);
  }
  const block = deflateRawSync(Buffer.alloc(mib), { finishFlush: constants.Z_FULL_FLUSH });
  const adler = Buffer.alloc(4);
  adler.writeUInt32BE((sizeBytes % 65_521) * 65_536 + 1);
  const head = Buffer.from('PACK\0\0\0\x02\0\0\0\x01', 'latin1');
  const body = Buffer.concat([
    head,
    Buffer.from(bytes),
    Buffer.from([0x78, 0x9c]),
    ...Array.from({ length: sizeBytes / mib }, () => block),
    Buffer.from([0x03, 0x00]),
    adler,
  ]);
  return Buffer.concat([body, createHash('sha1').update(body).digest()]);
}

function deltaBomb(base: number, times: number, count = 1): Buffer {
  const content = Buffer.alloc(base);
  return buildPack([
    { type: 'blob', content },
    ...Array.from({ length: count }, (_, i) => ({
      type: 'ref-delta' as const,
      base: objectId('blob', content),
      delta: copyDelta({ baseBytes: base, resultBytes: base * (times + i), copyBytes: base, times: times + i }),
    })),
  ]);
}
void createGzip; void commandSection; void assert;
