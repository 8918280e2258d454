import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { request, type IncomingMessage } from 'node:http';
import { after, before, describe, test } from 'node:test';
import {
  FrontEndClient,
  type FrontEnd,
  transports,
} from '../backends/conformance/front-end-ground.js';
import { startFrontEnd } from '../backends/conformance/front-end-suite.js';
import { PktReader } from '../server/wire/pkt-line.js';
import { parseSideBand } from '../server/wire/side-band.js';
import { writeCommandRequest } from '../server/wire/v2-request.js';

const stored = /remote: Sending a stored pack of \d+ objects\./;

let frontEnd: FrontEnd | undefined;
before(async () => {
  // What is done unasked comes at any time: here it is asked for.
  const flags = ['--set', 'maintenance.enabled=false'];
  frontEnd = await startFrontEnd((scene) => scene.startServer({ flags }));
});
after(() => frontEnd?.scene.close());

function ground(): FrontEnd {
  if (frontEnd === undefined) throw new Error('the server was not started');
  return frontEnd;
}

/** Clones and checks what came; tells whether it was the stored pack. */
async function clone(
  client: FrontEndClient,
  name: string,
  ...options: readonly string[]
): Promise<{ readonly copy: string; readonly fromStore: boolean }> {
  const copy = client.freshPath();
  const url = client.url(name);
  const { exitCode, stderr } = await client.try(['clone', '--progress', ...options, url, copy]);
  assert.equal(exitCode, 0, stderr);
  await client.git(['fsck', '--full', '--strict', '--connectivity-only'], { cwd: copy });
  await client.git(['fsck', '--full', '--strict'], { cwd: copy });
  return { copy, fromStore: stored.test(stderr) };
}

function objectsOf(client: FrontEndClient, cwd: string): Promise<string> {
  const args = ['cat-file', '--batch-all-objects', '--batch-check', '--unordered'];
  return client.git(args, { cwd }).then((text) =>
    text
      .split('\n')
      .toSorted((a, b) => (a < b ? -1 : 1))
      .join('\n'),
  );
}

function refsOf(client: FrontEndClient, cwd: string): Promise<string> {
  return client.git(['for-each-ref', '--format=%(objectname) %(refname)'], { cwd });
}

/** Branches, an annotated and a plain tag, and a file of several megabytes that does not compress. */
async function published(client: FrontEndClient): Promise<{ name: string; source: string }> {
  const made = await client.published({
    commits: 20,
    files: { 'big.bin': randomBytes(5_000_000) },
  });
  const { name, source } = made;
  await client.git(['tag', '-a', '-m', 'One', 'v1'], { cwd: source });
  await client.git(['tag', 'light', 'main~3'], { cwd: source });
  await client.git(['branch', 'topic', 'main~2'], { cwd: source });
  await client.git(['push', '-q', client.url(name), 'topic', 'v1', 'light'], { cwd: source });
  await client.admin('repo', 'maintain', name);
  return made;
}

for (const transport of transports) {
  const client = new FrontEndClient(transport, ground);
  describe(`clones from the stored pack: ${transport.name}`, () => {
    test('clones of everything come from it and are what git would send', async () => {
      const { name, source } = await published(client);
      const mirror = await clone(client, name, '--mirror');
      assert.ok(mirror.fromStore);
      assert.equal(await refsOf(client, mirror.copy), await refsOf(client, source));
      assert.equal(await objectsOf(client, mirror.copy), await objectsOf(client, source));
      for (const options of [[], ['--bare'], ['--no-local', '--origin', 'up']]) {
        const { copy, fromStore } = await clone(client, name, ...options);
        assert.ok(fromStore, options.join(' '));
        assert.equal(await objectsOf(client, copy), await objectsOf(client, source));
      }
      // None of these wants everything.
      for (const options of [
        ['--single-branch'],
        ['--no-tags'],
        ['--depth=1'],
        ['--filter=blob:none', '--bare'],
        ['--shallow-exclude=light'],
      ]) {
        const { copy, fromStore } = await clone(client, name, ...options);
        assert.ok(!fromStore, options.join(' '));
        assert.equal(await client.revision(copy, 'HEAD'), await client.revision(source, 'main'));
      }
    });

    test('a push ends it, maintenance brings it back, and what was deleted is not in it', async () => {
      const { name, source } = await published(client);
      const url = client.url(name);
      await client.git(['checkout', '-q', '-b', 'gone'], { cwd: source });
      const gone = await client.scene.commit(source, 'gone.txt', 'gone');
      await client.git(['push', '-q', url, 'gone'], { cwd: source });
      const pushed = await clone(client, name, '--mirror');
      assert.ok(!pushed.fromStore);
      await client.git(['cat-file', '-e', gone], { cwd: pushed.copy });
      await client.admin('repo', 'maintain', name);
      const repacked = await clone(client, name, '--mirror');
      assert.ok(repacked.fromStore);
      await client.git(['cat-file', '-e', gone], { cwd: repacked.copy });
      await client.git(['push', '-q', url, ':gone'], { cwd: source });
      const deleted = await clone(client, name, '--mirror');
      assert.ok(!deleted.fromStore);
      await client.refused(['cat-file', '-e', gone], { cwd: deleted.copy });
      await client.admin('repo', 'maintain', name);
      const last = await clone(client, name, '--mirror');
      assert.ok(last.fromStore);
      await client.refused(['cat-file', '-e', gone], { cwd: last.copy });
      assert.equal(await objectsOf(client, last.copy), await objectsOf(client, deleted.copy));
      await client.git(['fetch', '-q', 'origin'], { cwd: repacked.copy });
    });

    test('a hidden ref keeps it back', async () => {
      const { name, source } = await published(client);
      await client.git(['checkout', '-q', '--detach'], { cwd: source });
      const secret = await client.scene.commit(source, 'secret.txt', 'secret');
      await client.git(['push', '-q', client.url(name), 'HEAD:refs/hidden/x'], { cwd: source });
      await client.admin('repo', 'maintain', name);
      assert.ok((await clone(client, name, '--mirror')).fromStore);
      await client.admin('repo', 'set', name, 'transfer.hideRefs=refs/hidden');
      const { copy, fromStore } = await clone(client, name, '--mirror');
      assert.ok(!fromStore);
      await client.refused(['cat-file', '-e', secret], { cwd: copy });
    });
  });
}

/** The pack in a v2 fetch's answer. */
async function packIn(answer: IncomingMessage): Promise<Buffer> {
  const reader = new PktReader(answer);
  const parts: Buffer[] = [];
  let progress = '';
  assert.deepEqual(await reader.read(), { type: 'data', payload: Buffer.from('packfile\n') });
  for (;;) {
    const pkt = await reader.read();
    if (pkt?.type !== 'data') {
      assert.equal(pkt?.type, 'flush');
      assert.match(`remote: ${progress}`, stored);
      return Buffer.concat(parts);
    }
    const { band, data } = parseSideBand(pkt.payload);
    if (band === 1) parts.push(Buffer.from(data));
    else progress += data.toString();
  }
}

test('maintenance may remove the pack while a slow client is being sent it', async () => {
  const client = new FrontEndClient({ name: 'HTTP', scheme: 'http', protocol: 2 }, ground);
  const { name, source } = await client.published({
    files: { 'big.bin': randomBytes(24_000_000) },
  });
  await client.admin('repo', 'maintain', name);
  const body = writeCommandRequest({
    command: 'fetch',
    capabilities: [{ name: 'object-format', value: 'sha1' }],
    args: ['ofs-delta', `want ${await client.revision(source, 'main')}`, 'done'],
  });
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const url = new URL(`${client.url(name)}/git-upload-pack`);
    const auth = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
    request(url, {
      method: 'POST',
      auth,
      agent: false,
      headers: {
        'Content-Type': 'application/x-git-upload-pack-request',
        'Git-Protocol': 'version=2',
      },
    })
      .on('response', resolve)
      .on('error', reject)
      .end(body);
  });
  answer.pause();
  await client.scene.commit(source, 'next.txt', 'next');
  await client.git(['push', '-q', client.url(name), 'main'], { cwd: source });
  await client.admin('repo', 'maintain', name);
  const pack = await packIn(answer);
  assert.ok(pack.length > 24_000_000);
  const hash = createHash('sha1').update(pack.subarray(0, -20)).digest('hex');
  assert.equal(hash, pack.toString('hex', pack.length - 20));
});
