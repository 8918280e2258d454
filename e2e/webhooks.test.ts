import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { createScene, waitFor } from './harness.js';
import { HookGround, transports } from './hook-ground.js';
import { expectedSignature, type Received, Receiver } from './webhook-receiver.js';

// Webhooks as a real receiver meets them, pushed to by real git over both transports.

const zero = '0'.repeat(40);
let at: HookGround;
let receiver: Receiver;
before(async () => {
  at = await HookGround.open([
    'webhooks.allowedNetworks=127.0.0.1',
    'webhooks.firstRetry=50ms',
    'webhooks.timeout=10s',
  ]);
  receiver = await Receiver.open();
});
after(async () => {
  await receiver.close();
  await at.scene.close();
});

/** Adds a webhook; returns its id and its secret. */
async function add(
  scope: string,
  url: string,
  events = 'push',
): Promise<{ readonly id: string; readonly secret: string }> {
  const answer = await at.scene.admin(
    at.server,
    'webhook',
    'add',
    scope,
    url,
    '--events',
    events,
    '--json',
  );
  const added: { id: string; secret: string } = JSON.parse(answer);
  return added;
}

interface Shown {
  readonly id: string;
  readonly event: string;
  readonly status: string;
  readonly attempts: number;
  readonly last: { readonly outcome: string; readonly problem: string | null } | null;
}

async function deliveries(scope: string, id: string): Promise<readonly Shown[]> {
  const shown: readonly Shown[] = JSON.parse(
    await at.scene.admin(at.server, 'webhook', 'deliveries', scope, id, '--json'),
  );
  return shown;
}

/** The newest delivery, once it has ended after so many attempts: the answer comes before it is written down. */
async function settled(scope: string, id: string, attempts: number): Promise<Shown> {
  return waitFor(`${attempts} attempts`, async () => {
    const [newest] = await deliveries(scope, id);
    return newest?.attempts === attempts && newest.status !== 'pending' ? newest : undefined;
  });
}

for (const transport of transports) {
  describe(`webhooks over ${transport}`, () => {
    test('a push, and refs that come and go, are told and signed', async () => {
      const own = await Receiver.open();
      try {
        const repository = await at.make();
        const { secret } = await add(repository.name, own.url(), 'push,create,delete');
        const [old, next] = [
          await at.remoteTip(repository, 'refs/heads/main'),
          await at.tip(repository, 'main'),
        ];
        const pushed = await at.push(
          transport,
          repository,
          ['main', 'main:topic', 'main:refs/tags/v1', 'main:refs/notes/n'],
          ['ci.skip'],
        );
        assert.equal(pushed.exitCode, 0, pushed.stderr);
        const [push] = await own.take('push');
        assert.ok(push !== undefined);
        assert.equal(push.signature, expectedSignature(secret, push.text));
        assert.equal(push.body['delivery'], push.delivery);
        assert.deepEqual(push.body['pusher'], { name: 'admin' });
        assert.equal(push.body['generation'], 2);
        assert.equal(push.body['readToken'], '2');
        assert.deepEqual(push.body['pushOptions'], ['ci.skip']);
        assert.equal(push.body['complete'], true);
        const named = push.body['repository'];
        assert.ok(typeof named === 'object' && named !== null && 'name' in named);
        assert.equal(named.name, repository.name);
        const updates = push.body['updates'];
        assert.ok(Array.isArray(updates));
        assert.deepEqual(
          [...updates].sort((a, b) => (a.ref < b.ref ? -1 : 1)),
          [
            { ref: 'refs/heads/main', kind: 'branch', change: 'update', old, new: next },
            { ref: 'refs/heads/topic', kind: 'branch', change: 'create', old: zero, new: next },
            { ref: 'refs/notes/n', kind: 'other', change: 'create', old: zero, new: next },
            { ref: 'refs/tags/v1', kind: 'tag', change: 'create', old: zero, new: next },
          ],
        );
        const [created] = await own.take('create');
        assert.deepEqual(refsOf(created?.body), ['refs/heads/topic', 'refs/tags/v1']);
        assert.equal((await at.push(transport, repository, [':topic', ':v1'])).exitCode, 0);
        const [deleted] = await own.take('delete');
        assert.deepEqual(refsOf(deleted?.body), ['refs/heads/topic', 'refs/tags/v1']);
        assert.equal((await own.take('push', 2)).length, 2);
        const ids = own.received.map(({ delivery }) => delivery);
        assert.equal(new Set(ids).size, ids.length, 'one each');
      } finally {
        await own.close();
      }
    });

    test('a push that is refused is not told', async () => {
      const repository = await at.make();
      const { id } = await add(repository.name, receiver.url('/refused'));
      await at.setHook(repository.name, 'pre-receive', ['exit 1']);
      assert.equal((await at.push(transport, repository, ['main'])).exitCode, 1);
      await at.removeHook(repository.name, 'pre-receive');
      assert.deepEqual(await deliveries(repository.name, id), []);
    });
  });
}

function refsOf(body: Readonly<Record<string, unknown>> | undefined): readonly string[] {
  const updates = body?.['updates'];
  assert.ok(Array.isArray(updates));
  return updates.map(({ ref }) => String(ref)).sort();
}

function actionsOf(received: readonly Received[]): readonly string[] {
  return received.map(({ body }) => String(body['action'])).sort();
}

test('what happens to repositories is told, and the last words of one that is deleted', async () => {
  const everything = await Receiver.open();
  const own = await Receiver.open();
  const server = await add('--server', everything.url(), 'repository,push');
  try {
    await at.scene.admin(at.server, 'repo', 'create', 'told/app');
    const hook = await add('told/app', own.url(), 'repository');
    const change = async (...args: readonly string[]) => at.scene.admin(at.server, ...args);
    await change('repo', 'set', 'told/app', 'receive.denyDeletes=true', '--public');
    await change('repo', 'set', 'told/app', '--default-branch', 'trunk');
    await change('repo', 'rename', 'told/app', 'told/lib');
    await change('repo', 'delete', 'told/lib', '--yes');
    const wanted = ['changed', 'head-changed', 'renamed', 'deleted'];
    const heard = await everything.take('repository', 5);
    assert.deepEqual(actionsOf(heard), ['created', ...wanted].sort());
    const ofOwn = await own.take('repository', 4);
    assert.deepEqual(actionsOf(ofOwn), wanted.sort());
    const by = (action: string) => heard.find(({ body }) => body['action'] === action)?.body ?? {};
    assert.deepEqual(by('changed')['settings'], { 'receive.denyDeletes': 'true' });
    assert.equal(by('changed')['public'], true);
    assert.equal(by('renamed')['from'], 'told/app');
    assert.deepEqual(by('head-changed')['new'], { symref: 'refs/heads/trunk' });
    assert.deepEqual(by('deleted')['pusher'], { name: 'admin' });
    const gone = await at.scene.quorate(at.server, ['webhook', 'remove', 'told/lib', hook.id]);
    assert.match(gone.stderr, /no repository told\/lib/);
  } finally {
    await at.scene.admin(at.server, 'webhook', 'remove', '--server', server.id);
    await everything.close();
    await own.close();
  }
});

test('a receiver in trouble gets it later; what ended is sent again when asked for', async () => {
  const repository = await at.make();
  const own = await Receiver.open();
  try {
    const { id, secret } = await add(repository.name, own.url());
    let left = 2;
    own.behaviour = (_request, response) => {
      left -= 1;
      response.writeHead(left >= 0 ? 503 : 200).end('a word');
    };
    assert.equal((await at.push('http', repository, ['main'])).exitCode, 0);
    const three = await own.take('push', 3);
    assert.deepEqual(
      three.map(({ attempt }) => attempt),
      [1, 2, 3],
    );
    assert.equal(new Set(three.map(({ delivery }) => delivery)).size, 1);
    const ended = await settled(repository.name, id, 3);
    const again = await at.scene.admin(
      at.server,
      'webhook',
      'redeliver',
      repository.name,
      id,
      ended.id,
    );
    assert.equal(again, `queued ${ended.id}\n`);
    const four = await own.take('push', 4);
    assert.equal(four[3]?.text, three[0]?.text);
    await settled(repository.name, id, 4);
    const shown = await at.scene.admin(
      at.server,
      'webhook',
      'deliveries',
      repository.name,
      id,
      ended.id,
    );
    assert.match(shown, /attempts: +4/);
    assert.match(shown, /answer body: +a word/);
    for (const told of [shown, at.server.logs()]) assert.ok(!told.includes(secret));
  } finally {
    await own.close();
  }
});

test('a test says how it went; a secret of one’s own signs', async () => {
  const repository = await at.make();
  const file = at.scene.path('work', 'webhook-secret');
  await writeFile(file, 'correct-horse-battery\n');
  const added = await at.scene.quorate(at.server, [
    'webhook',
    'add',
    repository.name,
    receiver.url('/own'),
    '--secret',
    file,
  ]);
  assert.equal(added.stdout, '', 'a secret that was given is not printed');
  const [shown] = JSON.parse(
    await at.scene.admin(at.server, 'webhook', 'list', repository.name, '--json'),
  );
  const id: string = shown.id;
  assert.deepEqual(Object.keys(shown).sort(), ['by', 'createdAt', 'events', 'id', 'url']);
  const said = await at.scene.admin(at.server, 'webhook', 'test', repository.name, id);
  assert.match(said, /^delivered [0-9a-f-]+: 204\n$/);
  const ping = receiver.received.find(({ path }) => path === '/own');
  assert.equal(ping?.event, 'ping');
  assert.equal(ping.signature, expectedSignature('correct-horse-battery', ping.text));
  receiver.behaviour = (_request, response) => void response.writeHead(500).end();
  const failed = await at.scene.quorate(at.server, ['webhook', 'test', repository.name, id]);
  assert.equal(failed.exitCode, 1);
  assert.match(failed.stderr, /was not delivered: the receiver answered 500/);
  receiver.behaviour = (_request, response) => void response.writeHead(204).end();
  await at.scene.admin(at.server, 'webhook', 'remove', repository.name, id);
  const gone = await at.scene.quorate(at.server, ['webhook', 'deliveries', repository.name, id]);
  assert.match(gone.stderr, /there is no webhook/);
});

test('killed between the commit and the delivery, it is told after the next start', async (t) => {
  const own = await createScene(t);
  const ci = await Receiver.open();
  t.after(() => ci.close());
  ci.behaviour = () => undefined;
  const settings = ['webhooks.allowedNetworks=127.0.0.1', 'webhooks.firstRetry=50ms'];
  const flags = settings.flatMap((setting) => ['--set', setting]);
  const server = await own.startServer({ flags });
  await own.admin(server, 'repo', 'create', 'app');
  await own.admin(server, 'webhook', 'add', 'app', ci.url());
  const clone = await own.makeRepository();
  const pushed = await own.tryGit(['push', server.httpUrl('app'), 'main'], { cwd: clone });
  assert.equal(pushed.exitCode, 0);
  const [cutOff] = await ci.take('push');
  await server.killTree();
  ci.received.length = 0;
  ci.behaviour = (_request, response) => void response.end();
  await server.relaunch().ready();
  const [told] = await ci.take('push');
  assert.equal(told?.text, cutOff?.text);
  assert.equal(told?.delivery, cutOff?.delivery);
  const commit = (await own.git(['rev-parse', 'main'], { cwd: clone })).trim();
  assert.ok(told?.text.includes(commit));
});

describe('bad receivers', () => {
  test('where webhooks may not go is said when it is added, and when it is tried', async () => {
    const repository = await at.make();
    const attempts: readonly (readonly [url: string, words: RegExp])[] = [
      ['http://169.254.169.254/latest', /url: is not a public address/],
      ['http://10.0.0.1/', /url: is not a public address/],
      ['http://[::ffff:10.0.0.1]/', /url: is not a public address/],
      ['http://[fe80::1]/', /url: is not a public address/],
      ['http://0xa9.0xfe.0xa9.0xfe/', /url: is not a public address/],
      ['ftp://ci.example.org/', /url: has to start with https/],
      ['https://ann:pw@ci.example.org/', /url: must not hold a user name/],
      ['ci.example.org', /url: is no URL/],
    ];
    for (const [url, words] of attempts) {
      const refused = await at.scene.quorate(at.server, ['webhook', 'add', repository.name, url]);
      assert.equal(refused.exitCode, 1);
      assert.match(refused.stderr, words);
    }
    const events = await at.scene.quorate(at.server, [
      'webhook',
      'add',
      repository.name,
      'https://ci.example.org/',
      '--events',
      'push,pull',
    ]);
    assert.match(events.stderr, /events\.1: has to be push, create, delete or repository/);
    // A name: only what it stands for can be judged. ::1 is not among the networks let in here.
    const { id } = await add(repository.name, 'http://ip6-localhost:9/');
    const tried = await at.scene.quorate(at.server, ['webhook', 'test', repository.name, id]);
    assert.equal(tried.exitCode, 1);
    assert.match(tried.stderr, /not a public one|cannot be resolved|no answer within/);
  });

  test('one that redirects, floods or is silent keeps no push waiting', async () => {
    const repository = await at.make();
    const bad = await Receiver.open();
    let redirected = 0;
    bad.behaviour = (request, response) => {
      if (request.url === '/metadata') redirected += 1;
      if (request.url === '/redirect') {
        response.writeHead(307, { Location: bad.url('/metadata') }).end();
      } else if (request.url === '/flood') {
        response.writeHead(200);
        const part = Buffer.alloc(1024 * 1024);
        const more = (): void => {
          while (!response.destroyed && response.write(part));
        };
        response.on('drain', more);
        more();
      }
    };
    try {
      const hooks = new Map<string, string>();
      for (const kind of ['redirect', 'flood', 'silent']) {
        hooks.set(kind, (await add(repository.name, bad.url(`/${kind}`))).id);
      }
      const good = await Receiver.open();
      try {
        await add(repository.name, good.url());
        assert.equal((await at.push('ssh', repository, ['main'])).exitCode, 0);
        await good.take('push');
      } finally {
        await good.close();
      }
      const outcome = (kind: string): Promise<string> =>
        waitFor(`an outcome of ${kind}`, async () => {
          const [only] = await deliveries(repository.name, hooks.get(kind) ?? '');
          return only?.last?.outcome;
        });
      assert.equal(await outcome('redirect'), 'redirect');
      assert.equal(await outcome('flood'), 'delivered');
      assert.equal(await outcome('silent'), 'timeout');
      assert.equal(redirected, 0);
      for (const id of hooks.values()) {
        await at.scene.admin(at.server, 'webhook', 'remove', repository.name, id);
      }
    } finally {
      await bad.close();
    }
  });
});

test('administrators of a repository have its webhooks; the trail has no secret and no path', async () => {
  const repository = await at.make();
  await at.scene.admin(at.server, 'user', 'add', 'hooker');
  const token = (
    await at.scene.admin(at.server, 'token', 'create', 'hooker', '--scope', 'admin')
  ).trim();
  const url = 'https://ci.example.org/hidden-in-the-path?key=hidden-in-the-query';
  const args = ['webhook', 'add', repository.name, url];
  assert.equal((await at.scene.quorate(at.server, args, { token })).exitCode, 1);
  await at.scene.admin(at.server, 'repo', 'grant', repository.name, 'hooker', 'admin');
  const added = await at.scene.quorate(at.server, args, { token });
  assert.equal(added.exitCode, 0, added.stderr);
  const secret = added.stdout.trim();
  assert.match(secret, /^[\w-]{43}$/);
  const trail = await at.scene.admin(at.server, 'audit', '--user', 'hooker', '--json');
  assert.match(trail, /"action":"webhook.add".*"receiver":"https:\/\/ci.example.org"/);
  for (const told of [trail, at.server.logs()]) {
    for (const hidden of [secret, 'hidden-in-the-path', 'hidden-in-the-query']) {
      assert.ok(!told.includes(hidden), hidden);
    }
  }
  const server = ['webhook', 'add', '--server', url];
  assert.match((await at.scene.quorate(at.server, server, { token })).stderr, /administrator/);
});

test('the directory backend, where others push too, takes no webhooks', async (t) => {
  const own = await createScene(t);
  const directory = await own.startServer({ backend: 'directory' });
  await own.admin(directory, 'repo', 'create', 'app');
  const refused = await own.quorate(directory, [
    'webhook',
    'add',
    'app',
    'https://ci.example.org/',
  ]);
  assert.match(refused.stderr, /use a post-receive hook of the repository/);
});
