import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { chunksOf, HostileGround, pktText } from './hostile-ground.js';
import { createScene } from './harness.js';
import type { Scene, ServerProcess } from './harness.js';
import { PktReader } from '../server/wire/pkt-line.js';

describe('what git tells people', () => {
  let scene: Scene;
  let server: ServerProcess;
  let source: string;
  before(async () => {
    scene = await createScene();
    server = await scene.startServer();
    source = await scene.makeRepository({ commits: 3 });
    await scene.git(['push', '-q', server.httpUrl('team/app.git'), 'main'], { cwd: source });
  });
  after(() => scene.close());

  test('a wrong token: authentication failed, and a helper is asked again', async () => {
    const url = server.httpUrl('team/app.git', { user: 'admin', token: 'wrong' });
    const said = await scene.tryGit(['ls-remote', url]);
    assert.notEqual(said.exitCode, 0);
    assert.match(said.stderr, /Authentication failed for/);
  });

  test('a credential helper is asked once, and its token serves push and clone', async () => {
    const asked = scene.path('home', 'asked');
    const helper = `!f() { test "$1" = get || exit 0; echo x >> ${asked}; echo username=any; echo password=${server.adminToken}; }; f`;
    const target = scene.path('work', 'by-helper');
    await scene.git([
      '-c',
      `credential.helper=${helper}`,
      'clone',
      '-q',
      `${server.url}/team/app`,
      target,
    ]);
    assert.equal(await readFile(asked, 'utf8'), 'x\n');
  });

  test('a private repository is not found by those who may not see it; nobody at all is asked who he is', async () => {
    await scene.admin(server, 'user', 'add', 'eve');
    const token = (await scene.admin(server, 'token', 'create', 'eve')).trim();
    const eve = { user: 'eve', token };
    const hidden = await scene.tryGit(['ls-remote', server.httpUrl('team/app.git', eve)]);
    const absent = await scene.tryGit(['ls-remote', server.httpUrl('team/none.git', eve)]);
    assert.match(hidden.stderr, /repository '.*' not found/);
    assert.equal(hidden.stderr.replaceAll('app', 'none'), absent.stderr);
    const anonymous = await scene.tryGit(['ls-remote', server.httpUrl('team/app.git', null)]);
    assert.match(anonymous.stderr, /could not read Username/);
    await scene.admin(server, 'repo', 'grant', 'team/app', 'eve', 'read');
    await scene.git(['ls-remote', server.httpUrl('team/app.git', eve)]);
    const push = await scene.tryGit(['push', server.httpUrl('team/app.git', eve), 'main:eve'], {
      cwd: source,
    });
    assert.match(push.stderr, /403/);
  });

  test('a first push to a name inside or around a repository: why it cannot be, and no other names', async () => {
    await scene.admin(server, 'repo', 'create', 'nest/inner/app');
    for (const [name, says] of [
      ['nest', 'nest cannot be a repository: there are repositories below it'],
      ['nest/inner/app/x', 'nest/inner/app/x cannot be a repository: nest/inner/app is one'],
    ] as const) {
      const pushed = await scene.tryGit(['push', server.httpUrl(name), 'main'], { cwd: source });
      assert.notEqual(pushed.exitCode, 0);
      assert.ok(pushed.stderr.includes(says), pushed.stderr);
      if (name === 'nest') assert.ok(!pushed.stderr.includes('inner'), pushed.stderr);
    }
  });

  test('no repository can be made where the admin API is', async () => {
    const says = 'over HTTP all paths below /api are the admin API';
    for (const words of [
      ['create', 'api/x'],
      ['create', 'api'],
      ['rename', 'team/app', 'api/x'],
    ]) {
      const { exitCode, stderr } = await scene.quorate(server, ['repo', ...words]);
      assert.equal(exitCode, 1);
      assert.ok(stderr.includes(says), stderr);
    }
    const pushed = await scene.tryGit(['push', server.httpUrl('api.git'), 'main'], { cwd: source });
    assert.ok(pushed.stderr.includes(says), pushed.stderr);
    await scene.admin(server, 'repo', 'create', 'team/api');
  });

  test('a signed push is refused before anything is sent', async () => {
    const said = await scene.tryGit(
      ['push', '--signed=yes', server.httpUrl('team/app.git'), 'main:signed'],
      { cwd: source },
    );
    assert.notEqual(said.exitCode, 0);
    assert.match(said.stderr, /does not support --signed/);
  });

  for (const protocol of [0, 1, 2] as const) {
    test(`ls-remote speaks v${protocol} when asked to`, async () => {
      const listed = await scene.tryGit(['ls-remote', server.httpUrl('team/app.git')], {
        protocol,
        env: { GIT_TRACE_PACKET: '1' },
      });
      assert.equal(listed.exitCode, 0);
      assert.equal(/< version 2/.test(listed.stderr), protocol === 2);
      assert.equal(/< version 1/.test(listed.stderr), protocol === 1);
      assert.equal(/< [0-9a-f]{40} HEAD\\0/.test(listed.stderr), protocol !== 2);
    });
  }

  test('many haves come as gzip, and the fetch is small', async () => {
    const url = server.httpUrl('team/app.git');
    const clone = scene.path('work', 'many-haves');
    await scene.git(['clone', '-q', url, clone]);
    const many = Array.from({ length: 400 }, (_, n) => n).map(
      (n) =>
        `commit refs/heads/local-${n}\ncommitter T <t@example.org> ${1_800_000_000 + n} +0000\ndata 1\nx\n`,
    );
    await scene.git(['fast-import', '--quiet'], { cwd: clone, stdin: many.join('') });
    for (const protocol of [0, 2] as const) {
      await scene.commit(source, 'new.txt', `new for ${protocol}\n`);
      await scene.git(['push', '-q', url, 'main'], { cwd: source });
      const fetched = await scene.tryGit(['fetch', 'origin', `main:refs/got/${protocol}`], {
        cwd: clone,
        protocol,
        env: { GIT_TRACE_CURL: '1', GIT_TRACE_CURL_NO_DATA: '1' },
      });
      assert.equal(fetched.exitCode, 0, fetched.stderr);
      assert.match(fetched.stderr, /Content-Encoding: gzip/i);
    }
    await scene.git(['fsck', '--full', '--strict'], { cwd: clone });
  });

  test('shallow: clone, deepen, and push from it', async () => {
    const url = server.httpUrl('team/app.git');
    const clone = scene.path('work', 'shallow');
    await scene.git(['clone', '-q', '--depth', '1', url, clone]);
    assert.equal((await scene.git(['rev-list', '--count', 'HEAD'], { cwd: clone })).trim(), '1');
    const tip = await scene.commit(clone, 'shallow.txt', 'from a shallow clone\n');
    await scene.git(['push', '-q', 'origin', 'HEAD:refs/heads/from-shallow'], { cwd: clone });
    const listed = await scene.git(['ls-remote', url, 'refs/heads/from-shallow']);
    assert.equal(listed.slice(0, 40), tip);
    await scene.git(['fetch', '-q', '--deepen', '1'], { cwd: clone });
    await scene.git(['fetch', '-q', '--unshallow'], { cwd: clone });
    await scene.git(['fsck', '--full', '--strict'], { cwd: clone });
    // A shallow clone of something that the server does not have cannot be pushed: its history would have a hole.
    const other = await scene.makeRepository();
    await scene.git(['checkout', '-q', '--orphan', 'lone'], { cwd: other });
    await scene.commit(other, 'other.txt', 'one\n');
    await scene.commit(other, 'other.txt', 'two\n');
    const cut = scene.path('work', 'cut');
    await scene.git(['clone', '-q', '--depth', '1', `file://${other}`, cut]);
    const refused = await scene.tryGit(['push', url, 'HEAD:refs/heads/cut'], { cwd: cut });
    assert.notEqual(refused.exitCode, 0);
    assert.match(refused.stderr, /shallow update not allowed/);
  });

  for (const protocol of [0, 2] as const) {
    test(`a date or a ref that leaves no commit is told as git tells it (v${protocol})`, async () => {
      const url = server.httpUrl('team/app.git');
      for (const nothing of ['--shallow-since=2037-01-01', '--shallow-exclude=main']) {
        const refused = await scene.tryGit(
          ['clone', '-q', nothing, url, scene.path('work', `none-${protocol}`)],
          { protocol },
        );
        assert.notEqual(refused.exitCode, 0);
        assert.match(refused.stderr, /no commits selected for shallow requests/);
      }
    });
  }

  test('tags come along with what they point to', async () => {
    const url = server.httpUrl('team/tags.git');
    const repository = await scene.makeRepository({ commits: 50 });
    for (let n = 0; n < 50; n += 1) {
      await scene.git(['tag', '-a', '-m', `v${n}`, `v${n}`, `main~${n}`], { cwd: repository });
    }
    await scene.git(['push', '-q', url, 'main~10:refs/heads/main'], { cwd: repository });
    const clone = scene.path('work', 'tags');
    await scene.git(['clone', '-q', url, clone]);
    await scene.git(['push', '-q', url, 'main', '--tags'], { cwd: repository });
    await scene.git(['fetch', '-q', 'origin'], { cwd: clone });
    const tags = (await scene.git(['tag'], { cwd: clone })).trim().split('\n');
    assert.equal(tags.length, 50);
  });

  test('submodules are entries, and LFS pointers are blobs', async () => {
    const url = server.httpUrl('team/content.git');
    const repository = await scene.makeRepository();
    const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'a'.repeat(64)}\nsize 12345\n`;
    await writeFile(path.join(repository, 'large.bin'), pointer);
    await writeFile(
      path.join(repository, '.gitmodules'),
      '[submodule "sub"]\n\tpath = sub\n\turl = https://example.org/sub.git\n',
    );
    await writeFile(
      path.join(repository, '.gitattributes'),
      '*.bin filter=lfs diff=lfs merge=lfs -text\n',
    );
    await scene.git(['update-index', '--add', '--cacheinfo', `160000,${'b'.repeat(40)},sub`], {
      cwd: repository,
    });
    await scene.git(['add', 'large.bin', '.gitmodules', '.gitattributes'], { cwd: repository });
    await scene.git(['commit', '-q', '-m', 'content'], { cwd: repository });
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
    const clone = scene.path('work', 'content');
    await scene.git(['clone', '-q', '--no-checkout', url, clone]);
    assert.equal(await scene.git(['show', 'HEAD:large.bin'], { cwd: clone }), pointer);
    assert.match(
      await scene.git(['ls-tree', 'HEAD', 'sub'], { cwd: clone }),
      /^160000 commit b{40}\tsub$/m,
    );
  });

  test('sha256 repositories', async () => {
    await scene.admin(server, 'repo', 'create', 'team/sha256', '--object-format', 'sha256');
    const url = server.httpUrl('team/sha256.git');
    const repository = scene.path('work', 'sha256');
    await scene.git(['init', '-q', '-b', 'main', '--object-format=sha256', repository]);
    const tip = await scene.commit(repository, 'file', randomBytes(100).toString('hex'));
    assert.equal(tip.length, 64);
    await scene.git(['push', '-q', url, 'main'], { cwd: repository });
    for (const protocol of [0, 2] as const) {
      const clone = scene.path('work', `sha256-${protocol}`);
      await scene.git(['clone', '-q', url, clone], { protocol });
      assert.equal((await scene.git(['rev-parse', 'HEAD'], { cwd: clone })).trim(), tip);
      await scene.git(['fsck', '--full', '--strict'], { cwd: clone });
    }
    const refused = await scene.tryGit(['push', url, 'main:sha1'], { cwd: source });
    assert.notEqual(refused.exitCode, 0);
    assert.match(refused.stderr, /does not support this repository's hash algorithm/);
  });
});

/** A request that waits for leave to send its body. */
const head = (authorization: string): string =>
  `POST /victim.git/git-upload-pack HTTP/1.1\r\nHost: x\r\n${authorization}Git-Protocol: version=2\r\n` +
  'Content-Type: application/x-git-upload-pack-request\r\nContent-Length: 28\r\nExpect: 100-continue\r\n\r\n';

describe('protocol v2, by hand', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  const ask = async (...lines: readonly string[]): Promise<readonly string[]> => {
    const answer = await ground.post(
      'git-upload-pack',
      Buffer.from(
        lines
          .map((line) => (line === '0001' || line === '0000' ? line : pktText(`${line}\n`)))
          .join(''),
      ),
      { protocol: 2 },
    );
    assert.equal(answer.status, 200, answer.body.toString());
    assert.equal(answer.headers['content-type'], 'application/x-git-upload-pack-result');
    assert.match(String(answer.headers['cache-control']), /no-cache/);
    const reader = new PktReader(chunksOf(answer.body));
    const said: string[] = [];
    for (;;) {
      const pkt = await reader.read();
      if (pkt === undefined) return said;
      said.push(pkt.type === 'data' ? pkt.payload.toString('latin1').replace(/\n$/, '') : pkt.type);
    }
  };

  test('object-info tells sizes', async () => {
    const { scene, source, tip } = ground;
    const size = (await scene.git(['cat-file', '-s', tip], { cwd: source })).trim();
    assert.deepEqual(await ask('command=object-info', '0001', 'size', `oid ${tip}`, '0000'), [
      'size',
      `${tip} ${size}`,
      'flush',
    ]);
  });

  test('wait-for-done: never ready, and no pack before done', async () => {
    const said = await ask(
      'command=fetch',
      '0001',
      'wait-for-done',
      `want ${ground.tip}`,
      `have ${ground.tip}`,
      '0000',
    );
    assert.deepEqual(said, ['acknowledgments', `ACK ${ground.tip}`, 'flush']);
  });

  test('sideband-all puts every section on side-bands', async () => {
    const said = await ask(
      'command=fetch',
      '0001',
      'sideband-all',
      `want ${ground.tip}`,
      'done',
      '0000',
    );
    assert.ok(said.includes('\x01packfile'), said[0]);
    assert.ok(said.some((line) => line.startsWith('\x01PACK')));
  });

  test('ref-in-want names what it gave', async () => {
    const said = await ask(
      'command=fetch',
      '0001',
      'want-ref refs/heads/main',
      'no-progress',
      'done',
      '0000',
    );
    assert.deepEqual(said.slice(0, 4), [
      'wanted-refs',
      `${ground.tip} refs/heads/main`,
      'delim',
      'packfile',
    ]);
  });

  test('Expect: 100-continue is answered after authentication', async () => {
    const refused = await ground.rawHttp(head(''), (received) => received.includes('\r\n\r\n'));
    assert.match(refused, /^HTTP\/1\.1 401 [^]*www-authenticate: Basic/i);
    const go = await ground.rawHttp(
      head(`Authorization: ${ground.authorization}\r\n`),
      (received) => received.includes('\r\n\r\n'),
    );
    assert.match(go, /^HTTP\/1\.1 100 Continue\r\n/);
  });
});
