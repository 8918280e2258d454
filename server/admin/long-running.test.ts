import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { parseImportSource } from './import-source.js';
import { ApiScene, testClock } from './testing/api-scene.js';
import { Gate } from './testing/waiting.js';
import { until } from '../../backends/contract/testing/until.js';

const path = '/repositories/team%2Fnew/import';
const remote = { source: 'https://example.org/x.git' };

describe('what may be imported from', () => {
  const cases = [
    { source: 'https://example.org/x.git', privileged: false },
    { source: 'http://example.org:8080/x', privileged: false },
    { source: 'git://example.org/x.git', privileged: false },
    { source: 'HTTPS://EXAMPLE.org/x.git', privileged: false },
    { source: 'ssh://git@example.org:22/x.git', privileged: true },
    { source: '/srv/git/x.git', privileged: true },
  ];
  for (const { source, privileged } of cases) {
    test(`${source} ${privileged ? 'by administrators' : 'by everybody'}`, () => {
      assert.equal(parseImportSource(source).privileged, privileged);
    });
  }

  const refused = [
    'ext::sh -c true',
    'ext::sh%20-c%20true',
    'fd::3',
    'file:///etc/passwd',
    'ftp://example.org/x',
    'git@example.org:x.git',
    'example.org:x.git',
    'relative/path',
    './x',
    '../x',
    '/srv/../etc',
    '--upload-pack=touch /tmp/x',
    '-u/x',
    'ssh://-oProxyCommand=x/y',
    'ssh://%2DoProxyCommand=x/y',
    'ssh://-x@example.org/y',
    'https://',
    'https:example.org/x',
    'https::https://example.org/x',
    'transport::https://example.org/x',
    'https://example.org/a b',
    'https://example.org/a\nb',
    '/srv/\0x',
    '',
    `/${'x'.repeat(5000)}`,
  ];
  for (const source of refused) {
    test(`not ${JSON.stringify(source.slice(0, 40))}`, () => {
      assert.throws(
        () => parseImportSource(source),
        (error) => error instanceof QuorateError && error.code === 'invalid-argument',
      );
    });
  }

  test('credentials are neither shown nor kept in what git says', () => {
    const { shown, redact } = parseImportSource('https://ann:s3cret%21@example.org/x.git?key=k3y');
    assert.equal(shown, 'https://example.org/x.git');
    const said = redact(
      "fatal: https://ann:s3cret%21@example.org/x.git?key=k3y: not found, tried 's3cret!'",
    );
    assert.ok(!/s3cret|k3y/.test(said), said);
    assert.match(said, /fatal: https:\/\/example\.org\/x\.git: not found/);
  });
});

describe('long work over HTTP', () => {
  let scene: ApiScene;
  let admin: string;
  beforeEach(async () => {
    scene = await ApiScene.open();
    admin = await scene.token('root', { admin: true });
  });
  afterEach(async () => await scene.close());

  test('an import tells progress and its result, line by line', async () => {
    const answer = await scene.request('POST', path, { token: admin, body: remote });
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type') ?? '', /^application\/x-ndjson/);
    const lines = answer.text
      .trimEnd()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
    assert.deepEqual(lines.slice(0, 2), [
      { progress: { step: 'receiving', done: 1, total: 2 } },
      { progress: { step: 'receiving', done: 2, total: 2 } },
    ]);
    assert.match(
      answer.text,
      /\{"result":\{"repository":\{"id":"[^"]+","name":"team\/new".*"created":true,"refs":3\}\}\n$/,
    );
    assert.equal(lines.length, 3);
    assert.deepEqual(scene.backend.imported, [{ source: remote.source, actor: 'root' }]);
  });

  test('thousands of progress events become a few', async () => {
    scene.backend.importing = async ({ progress }) => {
      for (let done = 1; done <= 5000; done += 1)
        progress({ step: 'receiving', done, total: 5000 });
      return 1;
    };
    const answer = await scene.request('POST', path, { token: admin, body: remote });
    const lines = answer.text.trimEnd().split('\n');
    assert.ok(lines.length < 100, `${lines.length} lines`);
    assert.equal(lines.at(-2), '{"progress":{"step":"receiving","done":5000,"total":5000}}');
  });

  test('a failure before the first event has its own status, and takes the new repository back', async () => {
    scene.backend.importing = async () => {
      throw new QuorateError('failed-precondition', 'nothing to import there');
    };
    const answer = await scene.request('POST', path, { token: admin, body: remote });
    assert.equal(answer.status, 409);
    assert.equal(scene.backend.records.size, 0);
  });

  test('a later failure is the last event, and takes the new repository back', async () => {
    scene.backend.importing = async ({ progress }) => {
      progress({ step: 'receiving', done: 0, total: 2 });
      throw new QuorateError('storage-failure', 'the disk is full');
    };
    const answer = await scene.request('POST', path, { token: admin, body: remote });
    assert.equal(answer.status, 200);
    assert.match(
      answer.text,
      /\n\{"error":\{"type":"urn:quorate:problem:storage-failure".*"detail":"the disk is full".*\}\}\n$/,
    );
    assert.equal(scene.backend.records.size, 0);
    const event = scene.audited.find(({ event }) => event === 'admin');
    assert.equal(event?.outcome, 'error');
  });

  test('a repository that was there before, or was pushed to meanwhile, is kept', async () => {
    const make = { name: 'team/new', objectFormat: 'sha1' };
    await scene.request('POST', '/repositories', { token: admin, body: make });
    scene.backend.importing = async () => {
      throw new QuorateError('unavailable', 'the other side is gone');
    };
    await scene.request('POST', path, { token: admin, body: remote });
    assert.equal(scene.backend.records.size, 1);
    scene.backend.importing = async () => {
      const created = [...scene.backend.records.values()].find(({ name }) => name === 'team/other');
      scene.backend.refCounts.set(created?.id ?? '', 1);
      throw new QuorateError('failed-precondition', 'not empty any more');
    };
    await scene.request('POST', '/repositories/team%2Fother/import', {
      token: admin,
      body: remote,
    });
    assert.equal(scene.backend.records.size, 2);
  });

  test('when the client leaves, the import is aborted and the new repository taken back', async () => {
    const started = new Gate();
    const aborted = new Gate();
    scene.backend.importing = async ({ signal, progress }) => {
      progress({ step: 'receiving', done: 0, total: 1 });
      started.resolve();
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve());
      });
      aborted.resolve();
      throw new QuorateError('cancelled', 'gone');
    };
    const leaving = new AbortController();
    const request = scene.request('POST', path, {
      token: admin,
      body: remote,
      signal: leaving.signal,
    });
    await started.promise;
    assert.equal(scene.backend.records.size, 1);
    leaving.abort();
    await assert.rejects(request);
    await aborted.promise;
    await until('its record is gone', () => scene.backend.records.size === 0);
    await until('it is audited', () =>
      scene.audited.some(({ event, outcome }) => event === 'admin' && outcome === 'error'),
    );
  });

  test('credentials of the source are in no log, event or answer', async () => {
    scene.backend.importing = async () => {
      throw new QuorateError(
        'storage-failure',
        "git said: cannot read 'https://ann:s3cret@example.org/x.git'",
      );
    };
    const body = { source: 'https://ann:s3cret@example.org/x.git' };
    const answer = await scene.request('POST', path, { token: admin, body });
    assert.match(answer.text, /git said/);
    assert.equal(scene.backend.imported[0]?.source, body.source);
    assert.ok(!/s3cret/.test([answer.text, JSON.stringify(scene.audited), ...scene.logged].join()));
  });

  test('only so many at a time', async () => {
    const finish = new Gate();
    let running = 0;
    scene.backend.importing = async () => {
      running += 1;
      await finish.promise;
      return 1;
    };
    const requests = Array.from({ length: 8 }, (_, index) =>
      scene.request('POST', `/repositories/r${index}/import`, { token: admin, body: remote }),
    );
    await until('eight run', () => running === 8);
    const refused = await scene.request('POST', path, { token: admin, body: remote });
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get('retry-after'), '10');
    finish.resolve();
    for (const request of requests) assert.equal((await request).status, 200);
    assert.equal((await scene.request('POST', path, { token: admin, body: remote })).status, 200);
  });

  test('maintenance reports what it did', async () => {
    await scene.request('POST', '/repositories', { token: admin, body: { name: 'team/app' } });
    const answer = await scene.request('POST', '/repositories/team%2Fapp/maintain', {
      token: admin,
    });
    assert.match(answer.text, /^\{"progress":.*\n\{"result":\{"packsBefore":3,"packsAfter":1,/);
  });
});

test('silence is filled while work goes on', async () => {
  // A clock on which ten seconds pass at every sleep.
  let nowMs = 0;
  let sleeps = 0;
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: async (ms, signal) => {
      await testClock.sleep(1, signal);
      if (signal?.aborted !== true) nowMs += ms;
      sleeps += 1;
    },
  };
  const scene = await ApiScene.open({ clock });
  try {
    const admin = await scene.token('root', { admin: true });
    scene.backend.importing = async () => {
      const before = sleeps;
      await until('three sleeps', () => sleeps >= before + 3);
      return 1;
    };
    const answer = await scene.request('POST', path, { token: admin, body: remote });
    assert.match(answer.text, /^(\{"alive":true\}\n){2,}\{"result"/);
  } finally {
    await scene.close();
  }
});
