import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { HostileGround } from './hostile-ground.js';

const advertisement = '/victim.git/info/refs?service=git-upload-pack';

/** Requests that are HTTP and not Git's. */
const wrong: readonly {
  readonly desc: string;
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly status: number;
  readonly says: RegExp;
}[] = [
  {
    desc: 'a service that does not exist',
    path: '/victim.git/info/refs?service=git-shell',
    status: 403,
    says: /does not exist/,
  },
  {
    desc: 'archives',
    path: '/victim.git/info/refs?service=git-upload-archive',
    status: 403,
    says: /over SSH/,
  },
  {
    desc: 'a service with a command',
    path: '/victim.git/info/refs?service=git-upload-pack;id',
    status: 403,
    says: /does not exist/,
  },
  {
    desc: 'the service in another query',
    path: '/victim.git/info/refs?Service=git-upload-pack',
    status: 403,
    says: /smart HTTP/,
  },
  {
    desc: 'dumb HTTP: refs',
    path: '/victim.git/info/refs',
    status: 403,
    says: /smart HTTP protocol: use git/,
  },
  {
    desc: 'dumb HTTP: HEAD',
    path: '/victim.git/HEAD',
    status: 403,
    says: /smart HTTP protocol: use git/,
  },
  {
    desc: 'dumb HTTP: packs',
    path: '/victim.git/objects/info/packs',
    status: 403,
    says: /smart HTTP protocol: use git/,
  },
  {
    desc: 'dumb HTTP: an object',
    path: `/victim.git/objects/ab/${'c'.repeat(38)}`,
    status: 403,
    says: /smart HTTP/,
  },
  { desc: 'a file of the repository', path: '/victim.git/config', status: 400, says: /.+/ },
  { desc: 'a push by GET', path: '/victim.git/git-receive-pack', status: 405, says: /POST only/ },
  {
    desc: 'an advertisement by POST',
    method: 'POST',
    path: advertisement,
    status: 405,
    says: /GET, HEAD only/,
  },
  { desc: 'DELETE', method: 'DELETE', path: '/victim.git', status: 405, says: /GET, HEAD only/ },
  {
    desc: 'PUT',
    method: 'PUT',
    path: '/victim.git/objects/x',
    body: 'x',
    status: 405,
    says: /GET, HEAD only/,
  },
  {
    desc: 'PROPFIND',
    method: 'PROPFIND',
    path: '/victim.git',
    status: 405,
    says: /GET, HEAD only/,
  },
  { desc: 'TRACE', method: 'TRACE', path: '/victim.git', status: 405, says: /GET, HEAD only/ },
  ...[
    'application/x-git-receive-pack-request',
    'application/x-git-upload-pack-result',
    'application/x-www-form-urlencoded',
    'application/x-git-upload-pack-request; charset=utf-8',
    'text/plain',
  ].map((type) => ({
    desc: `a fetch as ${type}`,
    method: 'POST',
    path: '/victim.git/git-upload-pack',
    headers: { 'content-type': type },
    body: '0000',
    status: 415,
    says: /Content-Type of this request is application\/x-git-upload-pack-request/,
  })),
  {
    desc: 'a fetch without a type',
    method: 'POST',
    path: '/victim.git/git-upload-pack',
    body: '0000',
    status: 415,
    says: /Content-Type/,
  },
  {
    desc: 'a body where none belongs',
    path: advertisement,
    headers: { 'content-length': '4' },
    body: '0000',
    status: 400,
    says: /takes no body/,
  },
  {
    desc: 'an expectation that nobody has',
    path: advertisement,
    headers: { expect: '200-ok' },
    status: 417,
    says: /.*/,
  },
  { desc: 'the root', path: '/', status: 404, says: /nothing here/ },
];

const post =
  'POST /victim.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-receive-pack-request\r\n';
const second = 'GET /smuggled.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n';

/** Forms that a proxy and a server may read differently: one answer, and the connection is over. */
const smuggling = [
  {
    desc: 'a length and chunks',
    head: 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n',
    body: '0\r\n\r\n',
  },
  {
    desc: 'chunks and a length',
    head: 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n',
    body: '0\r\n\r\n',
  },
  { desc: 'two lengths', head: 'Content-Length: 0\r\nContent-Length: 80\r\n', body: '' },
  { desc: 'two lengths in one', head: 'Content-Length: 0, 80\r\n', body: '' },
  { desc: 'a length with a sign', head: 'Content-Length: +0\r\n', body: '' },
  { desc: 'a length in hexadecimal', head: 'Content-Length: 0x0\r\n', body: '' },
  {
    desc: 'chunked twice',
    head: 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n',
    body: '0\r\n\r\n',
  },
  { desc: 'chunked with a tab', head: 'Transfer-Encoding:\tchunked, x\r\n', body: '0\r\n\r\n' },
  { desc: 'a header with a space', head: 'Transfer-Encoding : chunked\r\n', body: '0\r\n\r\n' },
  { desc: 'bare line feeds', head: 'X: a\nTransfer-Encoding: chunked\r\n', body: '0\r\n\r\n' },
  { desc: 'a folded header', head: 'X: a\r\n Transfer-Encoding: chunked\r\n', body: '0\r\n\r\n' },
  { desc: 'a NUL in a header', head: 'X: a\0b\r\nContent-Length: 0\r\n', body: '' },
  {
    desc: 'a chunk size with an extension that never ends',
    head: 'Transfer-Encoding: chunked\r\n',
    body: `1;${'a'.repeat(100_000)}`,
  },
] as const;

describe('requests that are not what git sends', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  for (const { desc, method = 'GET', path, headers = {}, body, status, says } of wrong) {
    test(`${desc}: ${status}`, async () => {
      const answer = await ground.post(
        'git-upload-pack',
        body === undefined ? [] : [Buffer.from(body)],
        {
          method,
          path,
          headers: { 'content-type': undefined, ...headers },
        },
      );
      assert.equal(answer.status, status, answer.body.toString());
      assert.match(answer.body.toString(), says);
      // Node answers an expectation that it does not know by itself.
      if (status !== 417) assert.match(String(answer.headers['cache-control']), /no-cache/);
    });
  }

  for (const { desc, head, body } of smuggling) {
    test(`smuggling by ${desc}`, async () => {
      const authorization = `Authorization: ${ground.authorization}\r\n`;
      const answers = await ground.rawHttp(`${post}${authorization}${head}\r\n${body}${second}`);
      assert.ok([...answers.matchAll(/^HTTP\/1\.1 \d/gm)].length <= 1, answers);
      assert.doesNotMatch(answers, /smuggled/);
      assert.doesNotMatch(answers, /^HTTP\/1\.1 (?:101|5)/);
    });
  }

  test('an upgrade is not taken', async () => {
    const answers = await ground.rawHttp(
      `GET ${advertisement} HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n`,
    );
    assert.match(answers, /^HTTP\/1\.1 401 /);
  });

  test('HEAD gets the headers of GET', async () => {
    const answer = await ground.post('git-upload-pack', [], {
      method: 'HEAD',
      path: advertisement,
    });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], 'application/x-git-upload-pack-advertisement');
    assert.equal(answer.body.length, 0);
  });

  test('nothing of all this has changed anything', () => ground.assertUnharmed());
});

/** What `ssh host COMMAND` may bring besides a git command. */
const commands = [
  "git-upload-pack '/victim.git'; touch pwned",
  "git-upload-pack '/victim.git' && touch pwned",
  "git-upload-pack '/victim.git' | sh",
  "git-upload-pack '/victim.git' > pwned",
  "git-upload-pack '/victim.git'\ntouch pwned",
  'git-upload-pack $(touch pwned)',
  'git-upload-pack `touch pwned`',
  'git-upload-pack "$(touch pwned)"',
  'git-upload-pack victim.git',
  "git-upload-pack 'victim.git",
  "git-upload-pack victim.git'",
  "git-upload-pack 'victim.git' 'other.git'",
  "git-upload-pack '' ",
  "git-upload-pack ''",
  'git-upload-pack',
  'git-upload-pack ',
  "git-upload-pack --timeout=1 'victim.git'",
  "git-upload-pack '--upload-pack=touch pwned'",
  "git  upload-pack 'victim.git'",
  "git-upload-pack  'victim.git'",
  " git-upload-pack 'victim.git'",
  "/usr/bin/git-upload-pack 'victim.git'",
  "git-shell 'victim.git'",
  "git 'upload-pack' 'victim.git'",
  "git -c core.pager=sh upload-pack 'victim.git'",
  "git-lfs-authenticate 'victim.git' download",
  "git-http-backend 'victim.git'",
  'sh',
  'sh -c id',
  'scp -t /tmp',
  'internal-sftp',
  'rsync --server . /',
  'id',
  "git-upload-pack 'victim\x1b[31m.git'",
  `git-upload-pack '${'a'.repeat(20_000)}'`,
];

describe('SSH commands that are not what git sends', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  for (const command of commands) {
    test(JSON.stringify(command.slice(0, 70)), async () => {
      const answer = await ground.ssh(command);
      assert.equal(answer.exitCode, 128, answer.stderr);
      assert.equal(answer.stdout.length, 0);
      // One line for people, and nothing that moves their terminal.
      assert.match(answer.stderr, /^ERROR: [^\x00-\x1f\x7f]+\n$/);
    });
  }

  test('nothing of all this has run or changed anything', async () => {
    const found = await ground.scene.run('find', [ground.scene.directory, '-name', 'pwned']);
    assert.equal(found.stdout, '');
    await ground.assertUnharmed();
  });
});
