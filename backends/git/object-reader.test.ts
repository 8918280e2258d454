import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { GitRunner } from './git-runner.js';
import { createObjectReader, type ObjectReader } from './object-reader.js';
import { createGitRunner } from './runner.js';
import {
  noMeter,
  processesWith,
  quietLogger,
  realClock,
  TestRepository,
} from './testing/repository.js';
import { until } from '../contract/testing/until.js';

describe('object reader', () => {
  let git: GitRunner;
  let repository: TestRepository;
  let objects: ObjectReader;
  before(async () => {
    git = await createGitRunner({ logger: quietLogger, meter: noMeter });
    repository = new TestRepository();
    objects = createObjectReader({ git, clock: realClock });
  });
  after(async () => {
    await objects.close();
    await git.close();
    repository.remove();
  });

  it('tells type and size, in order, and what is missing', async () => {
    const commit = repository.commit();
    const tag = repository.tag('t', commit);
    const blob = repository.git(['hash-object', '-w', '--stdin'], 'hello');
    const missing = '1'.repeat(40);
    const infos = await objects.info(repository.gitDir, [
      blob,
      missing,
      tag,
      commit,
      repository.tree,
    ]);
    assert.deepEqual(
      infos.map((info) => info?.type),
      ['blob', undefined, 'tag', 'commit', 'tree'],
    );
    assert.equal(infos[0]?.sizeBytes, 5);
  });

  it('peels tags to the end, and only tags', async () => {
    const commit = repository.commit();
    const inner = repository.tag('inner', commit);
    const outer = repository.tag('outer', inner, 'tag');
    const peeled = await objects.peel(repository.gitDir, [commit, outer, inner, '1'.repeat(40)]);
    assert.deepEqual(
      [...peeled],
      [
        [outer, commit],
        [inner, commit],
      ],
    );
  });

  it('finds what came after it was started, loose or packed', async () => {
    await objects.info(repository.gitDir, ['1'.repeat(40)]);
    const commit = repository.commit();
    assert.equal((await objects.info(repository.gitDir, [commit]))[0]?.type, 'commit');
    const packed = repository.commit();
    repository.git(['update-ref', 'refs/heads/p', packed]);
    repository.git(['repack', '-a', '-d', '--quiet']);
    assert.equal((await objects.info(repository.gitDir, [packed]))[0]?.type, 'commit');
  });

  it('answers for many at once', async () => {
    const commit = repository.commit();
    const oids = Array.from({ length: 25_000 }, (_, index) =>
      index % 2 ? commit : '2'.repeat(40),
    );
    const infos = await objects.info(repository.gitDir, oids);
    assert.equal(infos.length, oids.length);
    assert.ok(infos.every((info, index) => (info === undefined) === (index % 2 === 0)));
  });

  it('takes only object ids', async () => {
    for (const oid of ['HEAD', '1'.repeat(40) + '\nHEAD', '', '1'.repeat(41)]) {
      await assert.rejects(objects.info(repository.gitDir, [oid]), { code: 'invalid-argument' });
    }
  });

  it('ends a process that is idle, and starts another when it died', async () => {
    const quick = createObjectReader({ git, clock: realClock, idleMs: 20 });
    const own = new TestRepository();
    const commit = own.commit();
    await quick.info(own.gitDir, [commit]);
    await until('the idle process ends', () => processesWith(own.gitDir).length === 0);
    await quick.close();

    const steady = createObjectReader({ git, clock: realClock });
    await steady.info(own.gitDir, [commit]);
    const [line = ''] = processesWith(own.gitDir);
    const runningBefore = git.running;
    process.kill(Number(line.split(' ')[0]), 'SIGKILL');
    await until('the death is noticed', () => git.running < runningBefore);
    assert.equal((await steady.info(own.gitDir, [commit]))[0]?.type, 'commit');
    await steady.close();
    assert.deepEqual(processesWith(own.gitDir), []);
    own.remove();
  });
});
