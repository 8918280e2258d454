import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { writeCommandRequest } from '../wire/v2-request.js';
import { PktReader, pktText } from '../wire/pkt-line.js';
import { maxSideBandDataBytes, parseSideBand } from '../wire/side-band.js';
import { FakeService, oidOf, type Scene } from './fake-service.js';

const refs = [
  { name: 'refs/heads/main', oid: oidOf('a') },
  { name: 'refs/tags/v1', oid: oidOf('c'), peeled: oidOf('a') },
];
const wants = [`want ${oidOf('a')}`, `want ${oidOf('c')}`];
const service = 'git-upload-pack' as const;

/** A pack of these bytes; `failAt` is where reading fails. */
function storing(
  bytes: Buffer,
  failAt = Number.POSITIVE_INFINITY,
): { readonly scene: Scene; readonly open: () => number } {
  let open = 0;
  const scene: Scene = {
    refs,
    wholePack: () => {
      open += 1;
      return {
        objectCount: 3,
        sizeBytes: bytes.length,
        read: (into, offset) => {
          let from = offset;
          for (const view of into) {
            view.set(bytes.subarray(from, from + view.length));
            from += view.length;
          }
          if (from > failAt) return Promise.reject(new QuorateError('storage-failure', 'broken'));
          return Promise.resolve();
        },
        close: () => {
          open -= 1;
          return Promise.resolve();
        },
      };
    },
  };
  return { scene, open: () => open };
}

function v2(args: readonly string[]): string {
  const capabilities = [{ name: 'object-format', value: 'sha1' }];
  return writeCommandRequest({ command: 'fetch', capabilities, args });
}

/** Payloads by band, and the lengths of the packets on band 1. */
async function bandsOf(
  reader: PktReader,
): Promise<{ readonly bands: readonly Buffer[]; readonly lengths: readonly number[] }> {
  const bands = [Buffer.alloc(0), Buffer.alloc(0), Buffer.alloc(0), Buffer.alloc(0)];
  const lengths: number[] = [];
  for (;;) {
    const pkt = await reader.read();
    if (pkt?.type !== 'data') {
      assert.equal(pkt?.type, 'flush');
      assert.equal(await reader.read(), undefined);
      return { bands, lengths };
    }
    const { band, data } = parseSideBand(pkt.payload);
    bands[band] = Buffer.concat([bands[band] ?? Buffer.alloc(0), data]);
    if (band === 1) lengths.push(data.length);
  }
}

async function* once(bytes: Buffer): AsyncGenerator<Uint8Array> {
  yield bytes;
}

for (const sizeBytes of [
  100,
  maxSideBandDataBytes,
  maxSideBandDataBytes * 16,
  maxSideBandDataBytes * 16 + 1,
  maxSideBandDataBytes * 53 + 17,
]) {
  test(`a stored pack of ${sizeBytes} bytes is framed whole, in v2 and v0`, async () => {
    const bytes = Buffer.from(Uint8Array.from({ length: sizeBytes }, (_, at) => (at * 7919) >> 5));
    for (const [part, input, before] of [
      [{ protocol: 2, mode: 'stateless' }, v2([...wants, 'ofs-delta', 'done']), 'packfile\n'],
      [
        { protocol: 2, mode: 'stateless' },
        v2([...wants, 'ofs-delta', 'sideband-all', 'done']),
        '\x01packfile\n',
      ],
      [
        { protocol: 0, mode: 'stateless' },
        `${pktText(`${wants[0]} ofs-delta side-band-64k\n`)}${pktText(`${wants[1]}\n`)}0000${pktText('done\n')}`,
        'NAK\n',
      ],
    ] as const) {
      const { scene, open } = storing(bytes);
      const fake = new FakeService(scene);
      const { output, outcome } = await fake.talk({ service, ...part }, input);
      assert.equal(outcome?.status, 'ok');
      assert.deepEqual([fake.runs.length, open(), fake.sessions], [0, 0, 0]);
      const reader = new PktReader(once(output));
      assert.deepEqual(await reader.read(), { type: 'data', payload: Buffer.from(before) });
      const { bands, lengths } = await bandsOf(reader);
      assert.ok(bands[1]?.equals(bytes));
      assert.match(String(bands[2]), /^Sending a stored pack of 3 objects\.\n$/);
      assert.ok(lengths.slice(0, -1).every((length) => length === maxSideBandDataBytes));
    }
  });
}

test('a disk that fails half-way is told on side-band 3, and the pack is closed', async () => {
  const bytes = Buffer.alloc(5_000_000, 'x');
  const { scene, open } = storing(bytes, 3_000_000);
  const input = v2([...wants, 'ofs-delta', 'no-progress', 'done']);
  const { output, outcome } = await new FakeService(scene).talk(
    { service, protocol: 2, mode: 'stateless' },
    input,
  );
  assert.equal(outcome?.status, 'error');
  assert.equal(open(), 0);
  const reader = new PktReader(once(output));
  await reader.read();
  const { bands } = await bandsOf(reader);
  assert.ok((bands[1]?.length ?? 0) < 3_000_000);
  assert.equal(bands[2]?.length, 0);
  assert.match(String(bands[3]), /the server's git failed/);
});

const whole = [...wants, 'ofs-delta', 'done'];
const toGit: readonly (readonly [string, readonly string[], Partial<Scene>])[] = [
  ['haves', [...whole, `have ${oidOf('a')}`], {}],
  ['no done', [...wants, 'ofs-delta'], {}],
  ['no deltas by offset', [...wants, 'done'], {}],
  ['a ref is not wanted', [wants[0] ?? '', 'ofs-delta', 'done'], {}],
  ['more than refs is wanted', [...whole, `want ${oidOf('e')}`], { objects: { [oidOf('e')]: 1 } }],
  ['shallow', [...whole, `shallow ${oidOf('a')}`], {}],
  ['deepen', [...whole, 'deepen 1'], {}],
  ['deepen-since', [...whole, 'deepen-since 5'], {}],
  ['deepen-not', [...whole, 'deepen-not refs/tags/v1'], {}],
  ['filter', [...whole, 'filter blob:none'], {}],
  ['a ref by name, not all', ['want-ref refs/heads/main', 'ofs-delta', 'done'], {}],
  [
    'hidden',
    [...whole],
    {
      settings: { 'transfer.hideRefs': 'refs/x' },
      refs: [...refs, { name: 'refs/x/y', oid: oidOf('a') }],
    },
  ],
];

for (const [desc, args, more] of toGit) {
  test(`git makes the pack: ${desc}`, async () => {
    const { scene, open } = storing(Buffer.alloc(100));
    const fake = new FakeService({ ...scene, ...more });
    await fake.talk({ service, protocol: 2, mode: 'stateless' }, v2(args));
    assert.deepEqual([fake.runs.length, open()], [1, 0]);
  });
}

test('v0: what is not a clone of everything reaches git as it came', async () => {
  const { scene } = storing(Buffer.alloc(100));
  let seen = '';
  const fake = new FakeService({
    ...scene,
    answer: (_run, input) => {
      seen = input.toString();
      return { stdout: pktText('NAK\n') };
    },
  });
  const first = pktText(`${wants[0]} ofs-delta side-band-64k\n`);
  const input = `${first}${pktText(`${wants[1]}\n`)}0000${pktText(`have ${oidOf('e')}\n`)}${pktText('done\n')}`;
  await fake.talk({ service, protocol: 0, mode: 'stateless' }, input);
  assert.equal(seen, input);
});
