import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { waitFor } from './harness.js';
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
    'webhooks.timeout=2s',
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
