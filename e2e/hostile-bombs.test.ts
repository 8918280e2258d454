import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { constants, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { buildPack, copyDelta, objectId } from '../backends/git/testing/build-pack.js';
import { commandSection, HostileGround, pktText } from './hostile-ground.js';
import type { HttpAnswer } from './hostile-ground.js';
import { watchMemory } from './memory.js';

const mib = 1024 ** 2;
const gib = 1024 ** 3;
/** Node processes: what the server has at rest, and the memory of one libgit2 worker. */
const maxNodeBytes = 900 * mib;
/** One git on a small pack. */
const maxGitBytes = 1_400 * mib;

describe('small requests that want to become large', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
    // The default, 2 GiB, takes a while to be inflated.
    await ground.scene.admin(ground.server, 'repo', 'set', 'victim', 'receive.maxObjectSize=256m');
  });
  after(() => ground.close());

  /** Runs an attack, and checks that the server's processes stayed small. */
  async function withinMemory<T>(attack: () => Promise<T>): Promise<T> {
    const watch = watchMemory(ground.server.pid);
    try {
      return await attack();
    } finally {
      const peak = await watch.stop();
      const told = `Node ${Math.round(peak.nodeBytes / mib)} MB, git ${Math.round(peak.otherBytes / mib)} MB`;
      assert.ok(peak.nodeBytes < maxNodeBytes && peak.otherBytes < maxGitBytes, told);
    }
  }

  const packs = [
    { desc: 'a blob of 500 MB', pack: () => zerosPack(500 * mib, 'blob'), says: /maxObjectSize/ },
    { desc: 'a tree of 1.9 GB', pack: () => zerosPack(1900 * mib, 'tree'), says: /.+/ },
    { desc: 'a commit of 1.9 GB', pack: () => zerosPack(1900 * mib, 'commit'), says: /.+/ },
    {
      desc: 'a delta of 16 KB for 3 GB',
      pack: () => deltaBomb([200]),
      says: /more memory than this server gives it, 1280 MiB .* git -c pack\.depth=0 push$/,
    },
    {
      desc: 'deltas of 320 MB each',
      pack: () => deltaBomb([20, 21, 22, 23]),
      says: /maxObjectSize/,
    },
  ];
  for (const { desc, pack, says } of packs) {
    test(`a pack with ${desc}`, async () => {
      const bytes = pack();
      assert.ok(bytes.length < 4 * mib);
      const command = { ref: 'refs/heads/evil', newOid: '1'.repeat(40) };
      const report = await withinMemory(() => ground.push([command], bytes));
      assert.match(report.unpack, says);
      assert.notEqual(report.unpack, 'ok');
      assert.deepEqual(report.refs, [{ ref: command.ref, status: 'ng', reason: 'unpacker error' }]);
      await ground.assertUnharmed();
    });
  }

  test('several at once, over HTTP and SSH', async () => {
    const commands = [{ ref: 'refs/heads/evil', newOid: '1'.repeat(40) }];
    const reports = await Promise.all(
      Array.from({ length: 6 }, (_, n) =>
        n % 2 === 0
          ? ground.push(commands, deltaBomb([200 + n]))
          : ground.pushOverSsh(commands, deltaBomb([200 + n])),
      ),
    );
    for (const { unpack } of reports) assert.notEqual(unpack, 'ok');
    await ground.assertUnharmed();
  });

  const gzip = { 'content-encoding': 'gzip' };
  const commands = Buffer.from(
    commandSection([{ ref: 'refs/heads/evil', newOid: '1'.repeat(40) }]),
  );
  const bodies: readonly { desc: string; ask: () => Promise<HttpAnswer>; status: number }[] = [
    {
      desc: 'a fetch that is a gigabyte of zeros in gzip',
      ask: () => ground.post('git-upload-pack', gzipBomb(gib), { headers: gzip }),
      status: 400,
    },
    {
      desc: 'a fetch of a gigabyte of wants in gzip',
      ask: () => ground.post('git-upload-pack', gzipBomb(gib, wants()), { headers: gzip }),
      status: 200,
    },
    {
      desc: 'a v2 fetch of a gigabyte of haves in gzip',
      ask: () =>
        ground.post(
          'git-upload-pack',
          gzipBomb(
            gib,
            Buffer.from(pktText(`have ${'1'.repeat(40)}\n`)),
            Buffer.from(`${pktText('command=fetch')}0001`),
          ),
          { headers: gzip, protocol: 2 },
        ),
      status: 200,
    },
    {
      desc: 'commands of a gigabyte in gzip',
      ask: () =>
        ground.post(
          'git-receive-pack',
          gzipBomb(
            gib,
            Buffer.from(
              pktText(`${'0'.repeat(40)} ${'1'.repeat(40)} refs/heads/${'x'.repeat(800)}`),
            ),
          ),
          { headers: gzip },
        ),
      status: 200,
    },
    {
      desc: 'a pack of zeros in gzip',
      ask: () =>
        ground.post('git-receive-pack', gzipBomb(gib, Buffer.alloc(mib), commands), {
          headers: gzip,
        }),
      status: 200,
    },
    {
      desc: 'gzip in gzip',
      ask: () => ground.post('git-upload-pack', gzipSync(gzipBomb(64 * mib)), { headers: gzip }),
      status: 400,
    },
    {
      desc: 'gzip that is none',
      ask: () => ground.post('git-upload-pack', Buffer.from('not gzip'), { headers: gzip }),
      status: 400,
    },
    {
      desc: 'gzip that is cut',
      ask: () =>
        ground.post('git-upload-pack', gzipSync('0014command=ls-refs\n00010000').subarray(0, 20), {
          headers: gzip,
          protocol: 2,
        }),
      status: 400,
    },
    ...['br', 'deflate', 'gzip, gzip', 'zstd'].map((encoding) => ({
      desc: `a body in ${encoding}`,
      ask: () =>
        ground.post('git-upload-pack', deflateSync('0000'), {
          headers: { 'content-encoding': encoding },
        }),
      status: 415,
    })),
  ];
  for (const { desc, ask, status } of bodies) {
    test(desc, async () => {
      const answer = await withinMemory(ask);
      assert.equal(answer.status, status, answer.body.toString('latin1', 0, 500));
      // Not one of them brings anything but a refusal.
      if (status === 200) assert.match(answer.body.toString('latin1'), /ERR |\x03|unpack (?!ok)/);
      await ground.assertUnharmed();
    });
  }
});

function wants(): Buffer {
  return Buffer.from(pktText(`want ${'1'.repeat(40)}\n`));
}

const typeNumbers = { commit: 1, tree: 2, blob: 3 } as const;

/** A mebibyte of a deflate stream, flushed, so that it can be repeated. */
const zerosBlock = deflateRawSync(Buffer.alloc(mib), { finishFlush: constants.Z_FULL_FLUSH });

/** A pack of one object of zeros, made without deflating all of them. */
function zerosPack(sizeBytes: number, type: keyof typeof typeNumbers): Buffer {
  const header = [(typeNumbers[type] << 4) | (sizeBytes % 16)];
  for (let rest = Math.floor(sizeBytes / 16); rest > 0; rest = Math.floor(rest / 128)) {
    const last = header.length - 1;
    header[last] = (header[last] ?? 0) | 0x80;
    header.push(rest % 128);
  }
  // Adler-32 of zeros (RFC 1950).
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE((sizeBytes % 65_521) * 65_536 + 1);
  const body = Buffer.concat([
    Buffer.from('PACK\0\0\0\x02\0\0\0\x01', 'latin1'),
    Buffer.from(header),
    Buffer.from([0x78, 0x9c]),
    ...Array.from({ length: sizeBytes / mib }, () => zerosBlock),
    Buffer.from([0x03, 0x00]),
    checksum,
  ]);
  return Buffer.concat([body, createHash('sha1').update(body).digest()]);
}

/** 16 MiB of zeros, and deltas that repeat them this many times. */
function deltaBomb(times: readonly number[]): Buffer {
  const content = Buffer.alloc(0xff_ffff);
  const baseBytes = content.length;
  const base = objectId('blob', content);
  return buildPack([
    { type: 'blob', content },
    ...times.map((n) => ({
      type: 'ref-delta' as const,
      base,
      delta: copyDelta({ baseBytes, resultBytes: baseBytes * n, copyBytes: baseBytes, times: n }),
    })),
  ]);
}

/** `unit` repeated to `sizeBytes`, in gzip, behind `head`. Gzip members may follow each other (RFC 1952). */
function gzipBomb(sizeBytes: number, unit: Buffer = Buffer.alloc(mib), head?: Buffer): Buffer {
  const repeats = Math.max(1, Math.floor((8 * mib) / unit.length));
  const member = gzipSync(Buffer.concat(Array.from({ length: repeats }, () => unit)));
  const members = Math.ceil(sizeBytes / (repeats * unit.length));
  return Buffer.concat([
    ...(head === undefined ? [] : [gzipSync(head)]),
    ...Array.from({ length: members }, () => member),
  ]);
}
