/** Fetches that ask the same at one moment share one git. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type IncomingMessage, request } from 'node:http';
import { test, type TestContext } from 'node:test';
import { parseSideBand } from '../server/wire/side-band.js';
import { PktReader } from '../server/wire/pkt-line.js';
import { writeCommandRequest } from '../server/wire/v2-request.js';
import { createScene, type Scene, type ServerProcess, waitFor } from './harness.js';

interface Ground {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly source: string;
  readonly tip: string;
}

/** A repository of so many bytes that do not compress, without a stored pack: it was just pushed. */
async function pushed(t: TestContext, sizeBytes: number): Promise<Ground> {
  const scene = await createScene(t);
  const server = await scene.startServer({ flags: ['--set', 'maintenance.enabled=false'] });
  const files = { noise: randomBytes(sizeBytes) };
  const source = await scene.makeRepository({ commits: 5, files });
  await scene.git(['push', '-q', server.httpUrl('app'), 'main'], { cwd: source });
  const tip = (await scene.git(['rev-parse', 'main'], { cwd: source })).trim();
  return { scene, server, source, tip };
}

async function metric(server: ServerProcess, name: string): Promise<number> {
  const text = await (await fetch(`${server.opsUrl}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith(`${name} `));
  return Number(line?.slice(name.length) ?? 0);
}

const uploadPacks = 'quorate_git_spawns_total{command="upload-pack"}';
const joined = 'quorate_shared_fetches_total{outcome="joined"}';

test('20 clones at once after a push need a few gits at most, and each is whole', async (t) => {
  const { scene, server, tip } = await pushed(t, 6_000_000);
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  const env = await key.environment(server);
  const before = await metric(server, uploadPacks);
  const startedMs = performance.now();
  await Promise.all(
    Array.from({ length: 20 }, async (_, n) => {
      const copy = scene.path('work', `copy-${n}`);
      const ssh = n % 4 === 0;
      const url = ssh ? server.sshUrl('app') : server.httpUrl('app');
      await scene.git(['clone', '-q', '--bare', url, copy], {
        ...(ssh ? { env } : {}),
        timeoutMs: 120_000,
      });
      await scene.git(['fsck', '--full', '--strict'], { cwd: copy });
      assert.equal((await scene.git(['rev-parse', 'main'], { cwd: copy })).trim(), tip);
    }),
  );
  const runs = (await metric(server, uploadPacks)) - before;
  t.diagnostic(`${runs} runs of git upload-pack`);
  // One, or two where the second client came when the first had read much. What one git said is kept for five seconds: more
  // run only where the clients' machine is so busy that they do not begin within seconds of each other.
  const most = Math.max(8, 2 * Math.ceil((performance.now() - startedMs) / 5_000));
  assert.ok(runs <= most, `${runs} runs`);
  assert.equal(await metric(server, joined), 20 - runs);
});

/** Sends a clone's request; the answer is not read before it is asked for. */
function ask(server: ServerProcess, args: readonly string[]): Promise<IncomingMessage> {
  const body = writeCommandRequest({
    command: 'fetch',
    capabilities: [{ name: 'object-format', value: 'sha1' }],
    args,
  });
  return new Promise((resolve, reject) => {
    const asked = request(
      `${server.url}/app.git/git-upload-pack`,
      {
        method: 'POST',
        agent: false,
        headers: {
          'Content-Type': 'application/x-git-upload-pack-request',
          'Git-Protocol': 'version=2',
          Authorization: `Basic ${Buffer.from(`admin:${server.adminToken}`).toString('base64')}`,
        },
      },
      resolve,
    );
    asked.on('error', reject);
    asked.end(body);
  });
}

async function packIn(answer: IncomingMessage): Promise<Buffer> {
  const reader = new PktReader(answer);
  const parts: Buffer[] = [];
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined || pkt.type === 'flush') return Buffer.concat(parts);
    if (pkt.type !== 'data' || pkt.payload.toString('latin1') === 'packfile\n') continue;
    const { band, data } = parseSideBand(pkt.payload);
    if (band === 1) parts.push(Buffer.from(data));
  }
}

test('a client that is killed half-way, be it the first, harms none that shares its git', async (t) => {
  const { scene, server, tip } = await pushed(t, 24_000_000);
  let tries = 0;
  let answers: IncomingMessage[] = [];
  // Who comes when much was sent to the first already has a git of its own, which then is not what this is about.
  await waitFor('four to share one git', async () => {
    for (const answer of answers) answer.destroy();
    const before = await metric(server, joined);
    const args = [`want ${tip}`, `filter blob:limit=${++tries}g`, 'ofs-delta', 'done'];
    answers = await Promise.all([1, 2, 3, 4].map(() => ask(server, args)));
    return (await metric(server, joined)) === before + 3;
  });
  const runs = await metric(server, uploadPacks);
  const [first, second, ...others] = answers;
  assert.ok(first !== undefined && second !== undefined);
  // Nobody has read: these are in the middle of their answers.
  first.destroy();
  second.destroy();
  const packs = await Promise.all(others.map(packIn));
  assert.equal(packs.length, 2);
  for (const [n, pack] of packs.entries()) {
    const target = scene.path('work', `target-${n}`);
    await scene.git(['init', '-q', '--bare', target]);
    await scene.git(['index-pack', '--stdin', '--strict'], { cwd: target, stdin: pack });
    await scene.git(['rev-list', '--objects', '--quiet', tip], { cwd: target });
  }
  assert.equal(await metric(server, uploadPacks), runs, 'nobody needed a git of its own');
});

test('fetches that differ, one after another, are served by one git, each as if it were the first', async (t) => {
  const { scene, server, tip } = await pushed(t, 100_000);
  const before = await metric(server, uploadPacks);
  const packs: Buffer[] = [];
  // At once after each other: a git waits ten seconds for its next fetch.
  for (let n = 1; n <= 5; n++) {
    packs.push(
      await packIn(await ask(server, [`want ${tip}`, `have ${`${n}`.repeat(40)}`, 'done'])),
    );
  }
  const runs = (await metric(server, uploadPacks)) - before;
  assert.ok(runs < 5, `${runs} runs`);
  const sizes = new Set<number>();
  for (const [n, pack] of packs.entries()) {
    const target = scene.path('work', `target-${n}`);
    await scene.git(['init', '-q', '--bare', target]);
    await scene.git(['index-pack', '--stdin', '--strict'], { cwd: target, stdin: pack });
    await scene.git(['rev-list', '--objects', '--quiet', tip], { cwd: target });
    sizes.add(pack.readUInt32BE(8));
  }
  assert.equal(sizes.size, 1, 'the same number of objects in each');
});

test('so are those of git itself, which wants side-bands all through where it may', async (t) => {
  const { scene, server, source, tip } = await pushed(t, 100_000);
  const targets = [1, 2, 3, 4, 5, 6].map((n) => scene.path('work', `target-${n}`));
  for (const target of targets) {
    await scene.git(['init', '-q', '--bare', target]);
    await scene.git(['push', '-q', target, 'main~3:refs/heads/main'], { cwd: source });
    // A commit of its own, or they would ask the same and share one answer.
    const own = ['commit-tree', '-p', 'main', '-m', target, 'main^{tree}'];
    const oid = (await scene.git(own, { cwd: target })).trim();
    await scene.git(['update-ref', 'refs/heads/own', oid], { cwd: target });
  }
  const before = await metric(server, uploadPacks);
  for (const [n, target] of targets.entries()) {
    // One of them in between that wants none: nothing of another's request holds for it.
    const env = { GIT_TEST_SIDEBAND_ALL: n === 2 ? '0' : '1' };
    await scene.git(['fetch', '-q', server.httpUrl('app'), 'main'], { cwd: target, env });
  }
  const runs = (await metric(server, uploadPacks)) - before;
  assert.ok(runs < targets.length, `${runs} runs`);
  for (const target of targets) {
    assert.equal((await scene.git(['rev-parse', 'FETCH_HEAD'], { cwd: target })).trim(), tip);
    await scene.git(['fsck', '--full', '--strict'], { cwd: target });
  }
});

test('what is shared is of one state of the repository, and of what may be seen of it', async (t) => {
  const { scene, server, source, tip } = await pushed(t, 1_000);
  const args = [`want ${tip}`, 'include-tag', 'done'];
  const tagged = async (): Promise<boolean> => {
    const target = scene.path('work', `target-${await metric(server, uploadPacks)}`);
    const pack = await packIn(await ask(server, args));
    await scene.git(['init', '-q', '--bare', target]);
    await scene.git(['index-pack', '--stdin'], { cwd: target, stdin: pack });
    const types = await scene.git(
      ['cat-file', '--batch-all-objects', '--batch-check=%(objecttype)'],
      { cwd: target },
    );
    return types.includes('tag');
  };
  assert.equal(await tagged(), false);
  await scene.git(['tag', '-a', '-m', 'One', 'v1', 'main'], { cwd: source });
  await scene.git(['push', '-q', server.httpUrl('app'), 'v1'], { cwd: source });
  assert.equal(await tagged(), true, 'the next generation');
  await scene.admin(server, 'repo', 'set', 'app', 'transfer.hideRefs=refs/tags');
  assert.equal(await tagged(), false, 'a hidden tag is not given from an earlier answer');
  const stranger = await fetch(`${server.url}/app.git/info/refs?service=git-upload-pack`);
  assert.equal(stranger.status, 401, 'who may not read is asked who it is, whatever is kept');
});
