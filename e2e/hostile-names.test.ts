import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { HostileGround } from './hostile-ground.js';

/** Paths of HTTP requests, before `/info/refs`. None of them is a repository, whatever is decoded how often. */
const httpPaths: readonly { readonly path: string; readonly status: readonly number[] }[] = [
  ...[
    '/../victim.git',
    '/team/../victim.git',
    '/team/..%2fvictim.git',
    '/%2e%2e/victim.git',
    '/%2E%2E%2Fvictim.git',
    '/..%5cvictim.git',
    '/./victim.git',
    '/victim.git%00.png',
    '/victim%00',
    '/%c0%ae%c0%ae/victim.git',
    '/%c0%af/victim.git',
    '/%e0%80%ae/victim.git',
    '/victim%ff.git',
    '/%ed%a0%80.git',
    '/victim%0a.git',
    '/victim%0d%0aX-Evil:%201.git',
    '/victim%7f.git',
    '/victim%e2%80%8b.git',
    '/%ef%bc%8e%ef%bc%8e/victim.git',
    '/v%d1%96ctim.git',
    '/%252e%252e/victim.git',
    '/victim.git%2f',
    '//victim.git',
    '/victim.git//',
    '/team//app.git',
    '/.git',
    '/.victim.git',
    '/-victim.git',
    '/--upload-pack=x',
    '/victim.git.git',
    '/victim.lock',
    '/victim%20.git',
    '/victim:.git',
    '/~root/victim.git',
    '/$(id).git',
    '/`id`.git',
    '/%24%7bHOME%7d.git',
    '/victim;id.git',
    '/C:%5cvictim.git',
    `/${'a'.repeat(101)}.git`,
    `/${'a/'.repeat(8)}a.git`,
    `/${'a'.repeat(8000)}`,
  ].map((path) => ({ path, status: [400] })),
  // Names that could be, and are not.
  ...[
    '/VICTIM.git',
    '/victim..git',
    '/victim/git',
    '/victim.git/config',
    '/etc/passwd',
    '/victim.GIT',
  ].map((path) => ({ path, status: [400, 404] })),
];

const sshPaths = [
  '../victim.git',
  '/../victim.git',
  'team/../../victim.git',
  './victim.git',
  '//victim.git',
  'victim.git//',
  '.git',
  '-victim',
  '--help',
  'victim.git.git',
  'victim.lock',
  'victim\u00a0',
  'v\u0456ctim',
  'victim\u202egit',
  'victim\n',
  'victim\t',
  '$(id)',
  '`id`',
  '${HOME}',
  'victim;id',
  '~root/victim',
  'a'.repeat(5000),
  'x/'.repeat(1000),
];

for (const backend of ['local', 'directory'] as const) {
  describe(`names of repositories with the ${backend} backend`, () => {
    let ground: HostileGround;
    before(async () => {
      ground = await HostileGround.create({ backend });
      // What traversal would reach: a sound repository beside the root.
      await ground.scene.git([
        'clone',
        '-q',
        '--bare',
        ground.source,
        ground.scene.path('victim.git'),
      ]);
      await mkdir(ground.scene.path('team'));
    });
    after(() => ground.close());

    for (const { path, status } of httpPaths) {
      test(`HTTP ${path.slice(0, 60)}`, async () => {
        for (const service of ['git-upload-pack', 'git-receive-pack'] as const) {
          const answer = await ground.get(`${path}/info/refs?service=${service}`);
          // A first push makes a repository, so a good name gets an advertisement there.
          const wanted = service === 'git-upload-pack' ? status : [...status, 200];
          assert.ok(wanted.includes(answer.status), `${answer.status} ${answer.body.toString()}`);
          assert.ok(!answer.body.includes(ground.tip));
          assert.equal(answer.headers['x-evil'], undefined);
        }
        if (status.includes(404)) return;
        const posted = await ground.post('git-receive-pack', Buffer.from('0000'), {
          repository: path,
        });
        assert.equal(posted.status, 400, posted.body.toString());
      });
    }

    for (const path of sshPaths) {
      test(`SSH ${JSON.stringify(path.slice(0, 60))}`, async () => {
        for (const service of ['git-upload-pack', 'git-receive-pack', 'git-upload-archive']) {
          const answer = await ground.ssh(`${service} '${path}'`);
          assert.equal(answer.exitCode, 128, answer.stderr);
          assert.equal(answer.stdout.length, 0);
          assert.match(answer.stderr, /^ERROR: [^\n]+\n$/);
        }
      });
    }

    test('a raw request with bytes that no URL has', async () => {
      for (const target of [
        '/vic\x00tim',
        '/victim.git/../..',
        '/\xff\xfe',
        '/vic tim',
        '\\victim',
        'victim',
      ]) {
        const answer = await ground.rawHttp(
          `GET ${target}/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
        );
        assert.match(answer, /^HTTP\/1\.1 400 /, target);
      }
    });

    test('nothing of all this has changed anything', () => ground.assertUnharmed());
  });
}

/** git-check-ref-format(1), rule by rule, and what file systems and reports make of names. */
const badRefs = [
  'main',
  'HEAD',
  'FETCH_HEAD',
  'config',
  'refs',
  'refs/',
  'refs/main',
  'refs/heads',
  'refs/heads/',
  '/refs/heads/x',
  'refs//heads/x',
  'refs/heads//x',
  'refs/heads/x/',
  'refs/heads/.x',
  'refs/heads/.',
  'refs/heads/..',
  'refs/heads/../../x',
  'refs/heads/x/../../../config',
  'refs/../config',
  'refs/heads/x..y',
  'refs/heads/x.lock',
  'refs/heads/x.lock/y',
  'refs/heads/main.lock',
  'refs/heads/x.',
  'refs/heads/x y',
  'refs/heads/x~1',
  'refs/heads/x^',
  'refs/heads/x:y',
  'refs/heads/x?',
  'refs/heads/x*',
  'refs/heads/x[',
  'refs/heads/x\\y',
  'refs/heads/@{x',
  'refs/heads/x@{0}',
  'refs/heads/x\x01',
  'refs/heads/x\x7f',
  'refs/heads/x\ty',
  'refs/heads/x\ny',
  'refs/heads/x\r',
  '@',
  '-x',
  '--delete',
  'worktrees/x/HEAD',
  'objects/info/alternates',
  'hooks/pre-receive',
  `refs/heads/${'x'.repeat(251)}`,
  `refs/heads/${'x/'.repeat(500)}x`,
];

/** Names that look bad and are git's to take. */
const oddRefs = [
  'refs/heads/@',
  'refs/heads/-x',
  'refs/heads/--delete',
  'refs/heads/$(id)',
  'refs/heads/`id`;id',
  "refs/heads/'x'",
  'refs/heads/"x"',
  'refs/heads/%2e%2e',
  'refs/heads/\u00fcml\u00e4ut',
  'refs/heads/u\u0308ml',
  'refs/heads/\u202ex',
  'refs/heads/HEAD',
  'refs/heads/refs/heads/x',
  'refs/heads/{x}',
  `refs/heads/${'y'.repeat(250)}`,
];

describe('names of refs', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  test('none that git would not take is made, and each is told of', async () => {
    const commands = badRefs.map((ref) => ({ ref, newOid: ground.tip }));
    const report = await ground.push(commands, emptyPack());
    assert.deepEqual(
      report.refs.map(({ status }) => status),
      badRefs.map(() => 'ng'),
      JSON.stringify(report.refs.filter(({ status }) => status === 'ok')),
    );
    for (const entry of report.refs) {
      assert.match(
        entry.status === 'ng' ? entry.reason : '',
        /(?:funny refname|refname too long)$/,
      );
    }
    await ground.assertUnharmed();
  });

  test('nor is any of them deleted or taken for another', async () => {
    const commands = badRefs.map((ref) => ({ ref, oldOid: ground.tip, newOid: '0'.repeat(40) }));
    const report = await ground.push(commands);
    assert.ok(report.refs.every(({ status }) => status === 'ng'));
    await ground.assertUnharmed();
  });

  test('names with NUL and bytes that are not UTF-8 are broken framing', async () => {
    const { tip } = ground;
    for (const name of ['refs/heads/\xff\xfe', 'refs/heads/\xc0\xae', 'refs/heads/\xed\xa0\x80']) {
      const line = Buffer.from(`${'0'.repeat(40)} ${tip} ${name}`, 'latin1');
      const length = (line.length + 4).toString(16).padStart(4, '0');
      const body = Buffer.concat([Buffer.from(length), line, Buffer.from('0000')]);
      assert.equal((await ground.post('git-receive-pack', body)).status, 400);
    }
    await ground.assertUnharmed();
  });

  test('odd names are made, listed, fetched and deleted as they are', async () => {
    const { scene, server, tip } = ground;
    const made = await ground.push(
      oddRefs.map((ref) => ({ ref, newOid: tip })),
      emptyPack(),
    );
    assert.deepEqual(
      made.refs,
      oddRefs.map((ref) => ({ ref, status: 'ok' })),
    );
    const mirror = scene.path('work', 'odd');
    await scene.git(['clone', '-q', '--mirror', server.httpUrl('victim.git'), mirror]);
    const listed = await scene.git(['for-each-ref', '--format=%(refname)'], { cwd: mirror });
    assert.deepEqual(
      listed.trim().split('\n').toSorted(),
      [...oddRefs, 'refs/heads/main'].toSorted(),
    );
    const gone = await ground.push(
      oddRefs.map((ref) => ({ ref, oldOid: tip, newOid: '0'.repeat(40) })),
    );
    assert.ok(gone.refs.every(({ status }) => status === 'ok'));
    await ground.settle();
    await ground.assertUnharmed();
  });
});

function emptyPack(): Buffer {
  return Buffer.from('5041434b0000000200000000029d08823bd8a8eab510ad6ac75c823cfd3ed31e', 'hex');
}
