import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { PushRequest } from '../../backends/contract/backend.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { until } from '../../backends/contract/testing/until.js';
import { PktReader } from '../wire/pkt-line.js';
import { readRefAdvertisement } from '../wire/ref-advertisement.js';
import { acceptAll, codeOf, FakeService, oidOf, type Scene } from './fake-service.js';
import {
  create,
  heard,
  pack,
  packStart,
  pushOf,
  remove,
  reported,
  reportIn,
  service,
  session,
  stateless,
} from './testing/push-talk.js';

test('the advertisement has no HEAD, no peeled lines and no hidden refs', async () => {
  const main = { name: 'refs/heads/main', oid: oidOf('a') };
  const tag = { name: 'refs/tags/v1', oid: oidOf('c'), peeled: oidOf('a') };
  const hidden = { name: 'refs/secret/x', oid: oidOf('b') };
  const settings = { 'receive.hideRefs': 'refs/secret', 'receive.advertiseAtomic': 'false' };
  const fake = new FakeService({ refs: [main, tag, hidden], settings });
  const { output } = await fake.talk(session, '0000');
  const told = await readRefAdvertisement(new PktReader(PassThrough.from([output])));
  assert.deepEqual(told.refs, [main, { name: tag.name, oid: tag.oid }]);
  const names = told.capabilities.map(({ name }) => name);
  assert.deepEqual(names, [
    'report-status',
    'report-status-v2',
    'delete-refs',
    'side-band-64k',
    'quiet',
    'ofs-delta',
    'push-options',
    'object-format',
    'agent',
  ]);
  assert.deepEqual(fake.reads, [{ refsOnly: true, atLeast: undefined, strong: true }]);
  assert.equal(fake.sessions, 0);
});

test('a push: the backend gets commands, options and pack; the client its progress and report', async () => {
  let packBytes = 0;
  const fake = new FakeService({
    push: async (request) => {
      for await (const part of request.pack ?? []) packBytes += part.length;
      request.progress(Buffer.from('working\n'));
      return acceptAll({ ...request, pack: undefined });
    },
  });
  const bytes = pushOf([create], {
    names: 'report-status-v2 side-band-64k atomic quiet push-options',
    pushOptions: ['ci.skip'],
  });
  const talk = await fake.talk(stateless, bytes);
  assert.deepEqual(await reported(talk), {
    unpack: 'ok',
    refs: [{ ref: 'refs/heads/main', status: 'ok' }],
  });
  assert.equal((await heard(talk.output)).progress, 'working\n');
  assert.ok(talk.output.toString().endsWith('0000'));
  const [request] = fake.pushed;
  assert.equal(packBytes, pack.length);
  assert.deepEqual(
    [request?.atomic, request?.quiet, request?.pushOptions, request?.actor],
    [true, true, ['ci.skip'], 'ann'],
  );
  assert.deepEqual(fake.counted, ['pushes ok']);
  assert.equal(fake.audited.length, 1);
  assert.deepEqual(fake.audited[0]?.details['refs'], [
    { ref: create.ref, status: 'ok', oldOid: create.oldOid, newOid: create.newOid },
  ]);
});

test('without side-bands the report comes bare, and progress is dropped', async () => {
  const fake = new FakeService({
    push: async (request) => {
      request.progress(Buffer.from('working\n'));
      return acceptAll(request);
    },
  });
  const { output } = await fake.talk(stateless, pushOf([create], { names: 'report-status' }));
  assert.equal((await reportIn(output)).unpack, 'ok');
  const silent = await fake.talk(stateless, pushOf([create], { names: 'delete-refs' }));
  assert.equal(silent.output.length, 0);
});

const judged: readonly {
  desc: string;
  ref: string;
  settings?: Scene['settings'];
  reason: string;
}[] = [
  { desc: 'outside refs/', ref: 'HEAD', reason: 'funny refname' },
  { desc: 'one level', ref: 'refs/main', reason: 'funny refname' },
  { desc: 'climbing', ref: 'refs/heads/../../config', reason: 'funny refname' },
  { desc: 'a lock file', ref: 'refs/heads/main.lock', reason: 'funny refname' },
  { desc: 'a control character', ref: 'refs/heads/a\x01', reason: 'funny refname' },
  { desc: 'a long part', ref: `refs/heads/${'x'.repeat(251)}`, reason: 'refname too long' },
  { desc: 'a long name', ref: `refs/heads${'/x'.repeat(450)}`, reason: 'refname too long' },
  {
    desc: 'hidden',
    ref: 'refs/secret/x',
    settings: { 'receive.hideRefs': 'refs/secret' },
    reason: 'deny updating a hidden ref',
  },
];

for (const { desc, ref, settings = {}, reason } of judged) {
  test(`refused before the upload: ${desc}`, async () => {
    const fake = new FakeService({ settings });
    const report = await reported(await fake.talk(stateless, pushOf([create, { ...create, ref }])));
    assert.deepEqual(report.refs, [
      { ref: create.ref, status: 'ok' },
      { ref, status: 'ng', reason },
    ]);
    assert.equal(fake.pushed[0]?.refused.get(ref), reason);
    assert.deepEqual(fake.counted, ['pushes partial']);
  });
}

test('deleting a hidden ref has words of its own, and one level may be deleted', async () => {
  const fake = new FakeService({ settings: { 'receive.hideRefs': 'refs/secret' } });
  const commands = ['refs/secret/x', 'refs/stash'].map((ref) => ({ ...remove, ref }));
  const report = await reported(
    await fake.talk(stateless, pushOf(commands, { pack: Buffer.of() })),
  );
  assert.deepEqual(report.refs, [
    { ref: 'refs/secret/x', status: 'ng', reason: 'deny deleting a hidden ref' },
    { ref: 'refs/stash', status: 'ok' },
  ]);
});

test('a ref named twice is refused, both times, and reaches the backend once', async () => {
  const fake = new FakeService();
  const twice = pushOf([create, { ...create, newOid: oidOf('b') }]);
  const report = await reported(await fake.talk(stateless, twice));
  const reason = "multiple updates for ref 'refs/heads/main' not allowed";
  assert.deepEqual(
    report.refs,
    [1, 2].map(() => ({ ref: create.ref, status: 'ng', reason })),
  );
  assert.equal(fake.pushed[0]?.commands.length, 1);
});

test('a session: the pack ends by its trailer, deletes alone wait for none', async () => {
  for (const [commands, bytes] of [
    [[create], pack],
    [[remove], Buffer.of()],
  ] as const) {
    // The client keeps its half open until it has its report.
    const client = new PassThrough();
    client.write(pushOf(commands, { pack: bytes }));
    const fake = new FakeService();
    const { outcome } = await fake.talk(session, client);
    assert.equal(outcome?.status, 'ok');
    assert.equal(fake.pushed[0]?.pack === undefined, bytes.length === 0);
    client.destroy();
  }
});

test('a refused pack is read to its end before the report of a session', async () => {
  const client = new PassThrough();
  const fake = new FakeService({
    push: ({ commands }) => {
      // Behind the backend's back: its verdict is out before the rest of the pack is.
      setImmediate(() => client.write(pack.subarray(packStart.length)));
      return Promise.resolve({
        unpack: 'bad pack',
        refs: commands.map(({ ref }) => ({ ref, status: 'refused', reason: 'unpacker error' })),
      });
    },
  });
  client.write(pushOf([create], { pack: packStart }));
  const { outcome } = await fake.talk(session, client);
  assert.equal(outcome?.status, 'refused');
  assert.equal(outcome.exitCode, 0, 'told by the report');
  assert.equal(client.writableLength + client.readableLength, 0);
  await new Promise(setImmediate);
  assert.equal(client.readableLength, 0, 'the trailer was taken');
  client.destroy();
});

const failures: readonly { desc: string; code: 'unavailable' | 'internal'; reason: RegExp }[] = [
  { desc: 'an operating error', code: 'unavailable', reason: /^no quorum$/ },
  { desc: 'a bug, whose words stay in the log', code: 'internal', reason: /request-1$/ },
];

for (const { desc, code, reason } of failures) {
  test(`a failed push is told to every ref: ${desc}`, async () => {
    const fake = new FakeService({
      push: () => Promise.reject(new QuorateError(code, 'no quorum')),
    });
    const report = await reported(await fake.talk(stateless, pushOf([create, remove])));
    assert.match(report.unpack, reason);
    assert.equal(report.refs.length, 2);
    for (const ref of report.refs) assert.match(ref.status === 'ng' ? ref.reason : '', reason);
    assert.deepEqual(fake.counted, ['pushes error']);
    assert.equal(fake.audited[0]?.outcome, 'error');
  });
}

test('a push is recorded while its refs are being written, and once', async () => {
  const fake = new FakeService({
    push: async (request) => {
      const result = await acceptAll(request);
      assert.deepEqual(fake.audited, []);
      request.committed?.(result);
      assert.equal(fake.audited.length, 1);
      return result;
    },
  });
  await reported(await fake.talk(stateless, pushOf([create])));
  assert.deepEqual(fake.counted, ['pushes ok']);
  assert.equal(fake.audited.length, 1);
});

test('a push of unknown outcome gets no verdict', async () => {
  const fake = new FakeService({
    push: () => Promise.reject(new QuorateError('outcome-unknown', 'the answer was lost')),
  });
  const { output, error } = await fake.talk(stateless, pushOf([create]));
  assert.equal(output.length, 0);
  assert.equal(codeOf(error), 'outcome-unknown');
  assert.equal(fake.audited.length, 1);
});

test('a push of unknown outcome whose answer has begun is broken off, not ended', async () => {
  const fake = new FakeService({
    push: (request) => {
      request.progress(Buffer.from('checking\n'));
      return Promise.reject(new QuorateError('outcome-unknown', 'the answer was lost'));
    },
  });
  const { output, error } = await fake.talk(stateless, pushOf([create]));
  assert.ok(output.length > 0);
  // git waits for ever for the rest of an answer that came to its end without the end of its side-bands.
  assert.equal(codeOf(error), 'outcome-unknown');
});

for (const mode of ['stateless', 'session'] as const) {
  test(`a push of unknown outcome that is stopped gets no verdict either (${mode})`, async () => {
    const stopping = new AbortController();
    const fake = new FakeService({
      push: () => {
        stopping.abort(new QuorateError('deadline-exceeded', 'the request took too long'));
        return Promise.reject(new QuorateError('outcome-unknown', 'the answer was lost'));
      },
    });
    const { signal } = stopping;
    const { output, error, outcome } = await fake.talk({ service, mode, signal }, pushOf([create]));
    assert.doesNotMatch(output.toString(), /took too long/);
    if (mode === 'stateless') assert.equal(codeOf(error), 'outcome-unknown');
    else assert.equal(outcome?.fields['error'], 'outcome-unknown');
  });
}

test('a push that is committed as its request is stopped is told so, if it can be', async () => {
  const stopping = new AbortController();
  const fake = new FakeService({
    push: async (request) => {
      const result = await acceptAll(request);
      stopping.abort(new QuorateError('unavailable', 'the server is stopping'));
      return result;
    },
  });
  const { signal } = stopping;
  const report = await reported(await fake.talk({ ...stateless, signal }, pushOf([create])));
  assert.deepEqual(
    report.refs.map(({ status }) => status),
    ['ok'],
  );
});

for (const generation of [2, undefined]) {
  const desc = generation === undefined ? 'without generations' : 'with generations';
  test(`a push that is committed, and whose report is cut off, is of unknown outcome (${desc})`, async () => {
    const stopping = new AbortController();
    const { signal } = stopping;
    const fake = new FakeService({
      push: async (request) => {
        const { refs } = await acceptAll(request);
        return { unpack: 'ok', refs, ...(generation === undefined ? {} : { generation }) };
      },
    });
    // More than the client's line takes at once: 64 KiB.
    const refs = Array.from(
      { length: 1_000 },
      (_, index) => `refs/heads/${'x'.repeat(90)}${index}`,
    );
    const sent = pushOf(refs.map((ref) => ({ ...create, ref })));
    const { error } = await fake.talk({ ...stateless, signal }, sent, () => {
      stopping.abort(new QuorateError('deadline-exceeded', 'the request took too long'));
    });
    assert.equal(codeOf(error), 'outcome-unknown');
  });
}

test('a client that leaves in its pack is recorded, and not answered', async () => {
  const client = new PassThrough();
  const fake = new FakeService({
    push: async (request: PushRequest) => {
      client.destroy();
      return acceptAll(request);
    },
  });
  client.write(pushOf([create], { pack: packStart }));
  const { output, error } = await fake.talk({ ...session, transport: 'ssh' }, client);
  assert.equal(error, undefined);
  assert.ok(!output.toString('latin1').includes('unpack ok'));
  assert.deepEqual(fake.counted, ['pushes cancelled']);
});

test('keep-alives break the silence once the pack is in', async () => {
  const ticks: (() => void)[] = [];
  const fake = new FakeService({
    clock: {
      nowMs: () => 0,
      monotonicMs: () => 0,
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          signal?.addEventListener('abort', () => resolve(), { once: true });
          if (ms === 5000) ticks.push(resolve);
        }),
    },
    push: async (request) => {
      assert.equal(ticks.length, 0, 'not while the pack comes in');
      const result = await acceptAll(request);
      for (let count = 0; count < 2; count += 1) {
        await until('a pause', () => ticks.length > 0);
        ticks.shift()?.();
      }
      await until('the last pause', () => ticks.length > 0);
      return result;
    },
  });
  const { output } = await fake.talk(stateless, pushOf([create]));
  assert.equal(output.toString('latin1').split('0005\x01').length - 1, 2);
});

const bad: readonly { desc: string; input: Buffer; code: string }[] = [
  { desc: 'nonsense', input: Buffer.from('nonsense'), code: 'invalid-argument' },
  {
    desc: 'ids of another format',
    input: pushOf([{ ...create, newOid: 'a'.repeat(64) }], { names: 'report-status' }),
    code: 'invalid-argument',
  },
  {
    desc: 'a cut list',
    input: pushOf([create], { names: 'report-status' }).subarray(0, 60),
    code: 'invalid-argument',
  },
];

for (const { desc, input, code } of bad) {
  test(`refused with an error of its own: ${desc}`, async () => {
    const fake = new FakeService();
    const { error, output } = await fake.talk(stateless, input);
    assert.equal(codeOf(error), code);
    assert.equal(output.length, 0);
    assert.equal(fake.pushed.length, 0);
  });
}

test('once side-bands are negotiated, a bad push is told on band 3', async () => {
  const fake = new FakeService();
  const input = pushOf([{ ...create, newOid: 'a'.repeat(64) }]);
  const { output } = await fake.talk(session, input);
  const reader = new PktReader(PassThrough.from([output]));
  await readRefAdvertisement(reader);
  const rest: Buffer[] = [];
  for await (const part of reader.rest()) rest.push(Buffer.from(part));
  assert.match((await heard(Buffer.concat(rest))).fatal, /object ids are sha1/);
});

test('thousands of commands are bounded by the setting', async () => {
  const fake = new FakeService({ settings: { 'receive.maxCommands': '3' } });
  const commands = Array.from({ length: 4 }, (_, n) => ({ ...create, ref: `refs/heads/${n}` }));
  const { outcome, output } = await fake.talk(stateless, pushOf(commands));
  assert.equal(outcome?.status, 'refused');
  assert.match((await heard(output)).fatal, /^more than 3 ref updates/);
  assert.equal(fake.pushed.length, 0);
});

test('a signed push is refused in words that git shows', async () => {
  const fake = new FakeService();
  const { output } = await fake.talk(stateless, Buffer.from('000epush-cert\n'));
  assert.match(output.toString(), /^[0-9a-f]{4}ERR signed pushes are not supported here/);
  assert.equal(fake.pushed.length, 0);
});

test('an empty push, with which git asks whether it may come, is answered with nothing', async () => {
  const fake = new FakeService({ names: [] });
  const { outcome, output } = await fake.talk(stateless, '0000');
  assert.equal(outcome?.status, 'ok');
  assert.equal(output.length, 0);
  assert.equal(fake.created.length, 0);
});
