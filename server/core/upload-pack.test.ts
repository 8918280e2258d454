import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { PktReader, pktText } from '../wire/pkt-line.js';
import { readLsRefsResponse, type LsRefsLine } from '../wire/ls-refs.js';
import { readObjectInfo } from '../wire/object-info.js';
import { readRefAdvertisement, type RefAdvertisement } from '../wire/ref-advertisement.js';
import { readV2Capabilities } from '../wire/v2-capabilities.js';
import { writeCommandRequest } from '../wire/v2-request.js';
import { codeOf, FakeService, oidOf, type Scene, type Talk } from './fake-service.js';

const main = { name: 'refs/heads/main', oid: oidOf('a') };
const secret = { name: 'refs/secret/x', oid: oidOf('b') };
const tag = { name: 'refs/tags/v1', oid: oidOf('c'), peeled: oidOf('a') };
const refs = [main, secret, tag];
const hide = { 'transfer.hideRefs': 'refs/secret' };

const service = 'git-upload-pack' as const;
const v2 = { service, mode: 'stateless', protocol: 2 } as const;

function readerOf(bytes: Buffer): PktReader {
  return new PktReader(PassThrough.from([bytes]));
}

function command(name: string, args: readonly string[]): string {
  return writeCommandRequest({
    command: name,
    capabilities: [
      { name: 'agent', value: 'test' },
      { name: 'object-format', value: 'sha1' },
    ],
    args,
  });
}

async function lsRefs(scene: Scene, args: readonly string[]): Promise<readonly LsRefsLine[]> {
  const { output, error } = await new FakeService(scene).talk(v2, command('ls-refs', args));
  assert.equal(error, undefined);
  return readLsRefsResponse(readerOf(output));
}

async function advertised(
  scene: Scene,
  part: { mode: 'advertise' | 'session'; protocol?: 0 | 1 },
): Promise<RefAdvertisement> {
  const { output, outcome } = await new FakeService(scene).talk({ service, ...part }, '0000');
  assert.equal(outcome?.exitCode, 0);
  const reader = readerOf(output);
  if (part.mode === 'advertise') {
    const first = await reader.read();
    assert.deepEqual(first, { type: 'data', payload: Buffer.from(`# service=${service}\n`) });
    assert.equal((await reader.read())?.type, 'flush');
  }
  const advertisement = await readRefAdvertisement(reader);
  assert.equal(await reader.read(), undefined);
  return advertisement;
}

function errorOf({ output }: Talk): string {
  return output.toString().slice(4);
}

test('v0 and v1: HEAD first, tags peeled, hidden refs left out', async () => {
  for (const mode of ['advertise', 'session'] as const) {
    for (const protocol of [0, 1] as const) {
      const {
        refs: told,
        version,
        capabilities,
      } = await advertised({ refs, settings: hide }, { mode, protocol });
      assert.equal(version, protocol);
      assert.deepEqual(told, [{ name: 'HEAD', oid: oidOf('a') }, main, tag]);
      const names = capabilities.map(({ name }) => name);
      assert.ok(names.includes('filter'));
      assert.equal(names.includes('no-done'), mode === 'advertise', 'no-done is for HTTP');
      assert.deepEqual(
        capabilities.find(({ name }) => name === 'symref'),
        { name: 'symref', value: 'HEAD:refs/heads/main' },
      );
    }
  }
});

test('v0: an empty repository, and one with an unborn HEAD', async () => {
  assert.deepEqual((await advertised({}, { mode: 'session' })).refs, []);
  const unborn = await advertised({ refs: [tag] }, { mode: 'session' });
  assert.deepEqual(unborn.refs, [tag]);
  assert.ok(!unborn.capabilities.some(({ name }) => name === 'symref'));
});

test('v0: large lists are whole, and equal the second time', async () => {
  const many = Array.from({ length: 3000 }, (_, index) => ({
    name: `refs/heads/${String(index).padStart(5, '0')}`,
    oid: oidOf('d'),
  }));
  const fake = new FakeService({ refs: many, head: { symref: 'refs/heads/00001' } });
  const first = await fake.talk({ service, mode: 'session' }, '0000');
  const second = await fake.talk({ service, mode: 'session' }, '0000');
  assert.deepEqual((await readRefAdvertisement(readerOf(first.output))).refs.slice(1), many);
  assert.deepEqual(second.output, first.output);
});

test('v2 over HTTP has no service line and offers what the settings allow', async () => {
  const scene = { settings: { 'uploadpack.allowFilter': 'false' } };
  const { output } = await new FakeService(scene).talk({ service, mode: 'advertise', protocol: 2 });
  const list = await readV2Capabilities(readerOf(output));
  assert.deepEqual(
    list.find(({ name }) => name === 'fetch'),
    { name: 'fetch', value: 'shallow wait-for-done ref-in-want sideband-all' },
  );
});

const listings: readonly {
  desc: string;
  scene: Scene;
  args: readonly string[];
  lines: readonly LsRefsLine[];
}[] = [
  {
    desc: 'everything, bare',
    scene: { refs, settings: hide },
    args: [],
    lines: [
      { name: 'HEAD', oid: oidOf('a') },
      { name: main.name, oid: main.oid },
      { name: tag.name, oid: tag.oid },
    ],
  },
  {
    desc: 'symrefs and peeled tags',
    scene: { refs: [main, tag] },
    args: ['peel', 'symrefs'],
    lines: [{ name: 'HEAD', oid: oidOf('a'), symrefTarget: main.name }, main, tag],
  },
  {
    desc: 'prefixes, overlapping and out of order, each ref once',
    scene: { refs },
    args: ['peel', 'ref-prefix refs/tags/', 'ref-prefix refs/', 'ref-prefix refs/heads/main'],
    lines: [main, secret, tag],
  },
  {
    desc: 'nothing of what is hidden, asked by name',
    scene: { refs, settings: hide },
    args: ['ref-prefix refs/secret/x'],
    lines: [],
  },
  {
    desc: 'an unborn HEAD to those who ask for it',
    scene: {},
    args: ['symrefs', 'unborn', 'ref-prefix HEAD'],
    lines: [{ name: 'HEAD', symrefTarget: 'refs/heads/main' }],
  },
  { desc: 'no unborn HEAD to others', scene: {}, args: ['symrefs'], lines: [] },
];

for (const { desc, scene, args, lines } of listings) {
  test(`ls-refs lists ${desc}`, async () => assert.deepEqual(await lsRefs(scene, args), lines));
}

const refusals: readonly { desc: string; scene: Scene; request: string; words: RegExp }[] = [
  {
    desc: 'the tip of a hidden ref',
    scene: { refs, settings: hide },
    request: command('fetch', [`want ${secret.oid}`, 'done']),
    words: /^ERR upload-pack: not our ref b{40}$/,
  },
  {
    desc: 'a hidden ref by name',
    scene: { refs, settings: hide },
    request: command('fetch', ['want-ref refs/secret/x', 'done']),
    words: /^ERR unknown ref refs\/secret\/x$/,
  },
  {
    desc: 'an object by id where only tips may be wanted',
    scene: {
      refs,
      objects: { [oidOf('e')]: 1 },
      settings: { 'uploadpack.allowAnySHA1InWant': 'false' },
    },
    request: command('fetch', [`want ${oidOf('e')}`, 'done']),
    words: /^ERR upload-pack: not our ref e{40}$/,
  },
  {
    desc: 'a filter that is not offered',
    scene: { refs },
    request: command('fetch', [`want ${main.oid}`, 'filter sparse:oid=main:x', 'done']),
    words: /^ERR upload-pack: filter 'sparse:oid=main:x' not supported$/,
  },
  {
    desc: 'a hidden ref as the end of a shallow fetch',
    scene: { refs, settings: hide },
    request: command('fetch', [`want ${main.oid}`, 'deepen-not refs/secret/x']),
    words: /^ERR upload-pack: ambiguous deepen-not/,
  },
  {
    desc: 'the size of a hidden commit',
    scene: {
      refs,
      settings: { ...hide, 'uploadpack.allowAnySHA1InWant': 'false' },
      objects: { [secret.oid]: 200 },
    },
    request: command('object-info', ['size', `oid ${secret.oid}`]),
    words: /^ERR object-info: not our ref b{40}$/,
  },
  {
    desc: 'an unknown command',
    scene: {},
    request: command('frobnicate', []),
    words: /^ERR invalid command 'frobnicate'$/,
  },
  {
    desc: 'an unknown argument',
    scene: {},
    request: command('ls-refs', ['frobnicate']),
    words: /^ERR ls-refs: unexpected line: 'frobnicate'$/,
  },
  {
    desc: 'another object format',
    scene: {},
    request: writeCommandRequest({
      command: 'ls-refs',
      capabilities: [{ name: 'object-format', value: 'sha256' }],
      args: [],
    }),
    words: /^ERR mismatched object format: server sha1; client sha256$/,
  },
];

for (const { desc, scene, request, words } of refusals) {
  test(`v2 refuses ${desc}, with an ERR packet, and runs no git`, async () => {
    const fake = new FakeService(scene);
    const talk = await fake.talk(v2, request);
    assert.match(errorOf(talk), words);
    assert.equal(talk.outcome?.status, 'refused');
    assert.equal(talk.outcome.exitCode, 128);
    assert.deepEqual(fake.runs, []);
    assert.equal(fake.sessions, 0, 'the read was released');
  });
}

test('a v2 fetch reaches git as it was sent; wants by id are asked of the backend', async () => {
  const request = command('fetch', [`want ${main.oid}`, `want ${oidOf('e')}`, 'done']);
  let seen = '';
  const fake = new FakeService({
    refs,
    objects: { [oidOf('e')]: 7 },
    answer: (_run, input) => {
      seen = input.toString();
      return { stdout: `${pktText('packfile\n')}${pktText('\x01PACK')}0000` };
    },
  });
  const { output, outcome } = await fake.talk(v2, request);
  assert.equal(seen, request);
  assert.equal(output.toString(), `${pktText('packfile\n')}${pktText('\x01PACK')}0000`);
  assert.equal(outcome?.status, 'ok');
  assert.equal(fake.runs[0]?.stateless, true);
  assert.equal(fake.sessions, 0);
});

test('refs wanted by name reach git as ids', async () => {
  let seen = '';
  const fake = new FakeService({
    refs,
    answer: (_run, input) => {
      seen = input.toString();
      return { stdout: `${pktText('packfile\n')}0000` };
    },
  });
  const request = command('fetch', ['want-ref refs/heads/main', 'done']);
  const { output } = await fake.talk(v2, request);
  assert.equal(seen, command('fetch', [`want ${main.oid}`, 'done']));
  assert.ok(output.toString().includes(`${main.oid} ${main.name}\n`));
});

test('object-info tells sizes, and nothing of unknown objects', async () => {
  const fake = new FakeService({ refs, objects: { [main.oid]: 123 } });
  const request = command('object-info', ['size', `oid ${main.oid}`, `oid ${oidOf('f')}`]);
  const { output } = await fake.talk(v2, request);
  assert.deepEqual(await readObjectInfo(readerOf(output)), [
    { oid: main.oid, sizeBytes: 123 },
    { oid: oidOf('f'), sizeBytes: undefined },
  ]);
});

test('a v2 session serves request after request on one read, until a flush', async () => {
  const fake = new FakeService({ refs });
  const requests = command('ls-refs', []) + command('ls-refs', ['ref-prefix refs/heads/']);
  const part = { service, mode: 'session', protocol: 2 } as const;
  const { output, outcome } = await fake.talk(part, `${requests}0000`);
  const reader = readerOf(output);
  await readV2Capabilities(reader);
  assert.equal((await readLsRefsResponse(reader)).length, 4);
  assert.deepEqual(await readLsRefsResponse(reader), [main]);
  assert.equal(outcome?.exitCode, 0);
  assert.equal(fake.sessions, 0);
});

const answer = (): { stdout: string } => ({ stdout: `${pktText('packfile\n')}0000` });

test('a v2 session asks no store before it fetches, and then sees what it was told, or later', async () => {
  const part = { service, mode: 'session', protocol: 2 } as const;
  const requests =
    command('ls-refs', []) +
    command('ls-refs', ['peel']) +
    command('fetch', [`want ${main.oid}`, 'done']) +
    command('ls-refs', []);
  const fake = new FakeService({ refs, answer, refsInMemory: true });
  assert.equal((await fake.talk(part, `${requests}0000`)).outcome?.status, 'ok');
  assert.deepEqual(fake.reads, [
    { refsOnly: true, atLeast: undefined },
    { refsOnly: false, atLeast: 1 },
  ]);
  assert.equal(fake.sessions, 0);
  const stored = new FakeService({ refs, answer });
  await stored.talk(part, `${requests}0000`);
  assert.equal(stored.reads.length, 1, 'a read of a store is kept');
  assert.equal(stored.sessions, 0);
});

const wants = `${pktText(`want ${main.oid} side-band-64k\n`)}${pktText(`want ${tag.oid}\n`)}0000`;

test("a v0 session: git's own advertisement is dropped, its answer and our replay are whole", async () => {
  let seen = '';
  const fake = new FakeService({
    refs,
    answer: (_run, input) => {
      seen = input.toString();
      return {
        stdout: `${pktText(`${main.oid} HEAD\0caps\n`)}0000${pktText('NAK\n')}${pktText('\x01PACK')}0000`,
      };
    },
  });
  const { output, outcome } = await fake.talk({ service, mode: 'session' }, `${wants}0009done\n`);
  assert.equal(seen, `${wants}0009done\n`);
  const reader = readerOf(output);
  await readRefAdvertisement(reader);
  const rest: Buffer[] = [];
  for await (const part of reader.rest()) rest.push(Buffer.from(part));
  assert.equal(Buffer.concat(rest).toString(), `${pktText('NAK\n')}${pktText('\x01PACK')}0000`);
  assert.equal(outcome?.status, 'ok');
  assert.equal(fake.runs[0]?.stateless, false);
});

test('a v0 POST is checked and handed on; nothing is dropped from its answer', async () => {
  const fake = new FakeService({ refs, answer: () => ({ stdout: pktText('NAK\n') }) });
  const { output } = await fake.talk({ service, mode: 'stateless' }, `${wants}0009done\n`);
  assert.equal(output.toString(), pktText('NAK\n'));
  const forbidden = `${pktText(`want ${oidOf('f')} thin-pack\n`)}00000009done\n`;
  const refused = await fake.talk({ service, mode: 'stateless' }, forbidden);
  assert.match(errorOf(refused), /^ERR upload-pack: not our ref f{40}$/);
});

test('a v0 client that wants nothing ends cleanly, by a flush or by leaving', async () => {
  for (const input of ['0000', '']) {
    const fake = new FakeService({ refs });
    const { outcome } = await fake.talk({ service, mode: 'session' }, input);
    assert.deepEqual([outcome?.status, outcome?.exitCode], ['ok', 0]);
    assert.deepEqual(fake.runs, []);
  }
});

test('broken framing is the listener’s to answer over HTTP, and an ERR packet in a session', async () => {
  const fake = new FakeService({ refs });
  const posted = await fake.talk(v2, 'nonsense');
  assert.equal(posted.output.length, 0);
  assert.equal(codeOf(posted.error), 'invalid-argument');
  const said = await fake.talk({ service, mode: 'session', protocol: 2 }, 'nonsense');
  assert.match(said.output.toString(), /ERR bad pkt-line length 'nons'$/);
  assert.equal(said.outcome?.exitCode, 128);
});

test('a request beyond its bound is refused', async () => {
  const fake = new FakeService({ refs, limits: { maxFetchRequestBytes: 100 } });
  const haves = Array.from({ length: 10 }, () => `have ${oidOf('a')}`);
  const { outcome, output } = await fake.talk(v2, command('fetch', haves));
  assert.equal(outcome?.status, 'refused');
  assert.match(output.toString(), /^[0-9a-f]{4}ERR the request is too long$/);
});

test('archives are for sessions', async () => {
  const { error } = await new FakeService().talk({
    service: 'git-upload-archive',
    mode: 'stateless',
  });
  assert.equal(codeOf(error), 'unimplemented');
});
