import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { waitFor } from './harness.js';
import { HookGround } from './hook-ground.js';
import { expectedSignature, Receiver } from './webhook-receiver.js';

// Webhooks that are changed while they are in use.

let at: HookGround;
let receiver: Receiver;
before(async () => {
  at = await HookGround.open(['webhooks.allowedNetworks=127.0.0.1', 'webhooks.firstRetry=50ms']);
  receiver = await Receiver.open();
});
after(async () => {
  await receiver.close();
  await at.scene.close();
});

const webhook = (...words: readonly string[]): Promise<string> =>
  at.scene.admin(at.server, 'webhook', ...words);

test('its events and its URL are changed; what waits goes to the new one', async () => {
  const repository = await at.make();
  const { id }: { id: string } = JSON.parse(
    await webhook('add', repository.name, receiver.url('/old'), '--events', 'create', '--json'),
  );
  const events = await webhook('set', repository.name, id, '--events', 'push,delete');
  assert.match(events, new RegExp(`^changed webhook ${id}: push,delete to `));
  receiver.behaviour = (request, response) =>
    void response.writeHead(request.url === '/old' ? 503 : 204).end();
  assert.equal((await at.push('http', repository, ['main'])).exitCode, 0);
  await receiver.take('push');
  await webhook('set', repository.name, id, '--url', receiver.url('/new'));
  await waitFor('the new place', () => receiver.received.some(({ path }) => path === '/new'));
  const told = receiver.received.map(({ event, path }) => `${event} ${path}`);
  assert.deepEqual([...new Set(told)], ['push /old', 'push /new'], 'create is not told any more');
  assert.equal(new Set(receiver.received.map(({ delivery }) => delivery)).size, 1);
  receiver.behaviour = (_request, response) => void response.writeHead(204).end();
});

test('its secret is changed: a made one is printed once, and a given one is not', async () => {
  const repository = await at.make();
  const { id, secret: old }: { id: string; secret: string } = JSON.parse(
    await webhook('add', repository.name, receiver.url('/signed'), '--json'),
  );
  const ping = async (): Promise<readonly [signature: string, text: string]> => {
    await webhook('test', repository.name, id);
    const found = receiver.received.findLast(({ path }) => path === '/signed');
    return [found?.signature ?? '', found?.text ?? ''];
  };
  const [before, first] = await ping();
  assert.equal(before, expectedSignature(old, first));
  const made = (await webhook('rotate', repository.name, id)).trim();
  assert.match(made, /^[\w-]{43}$/);
  assert.notEqual(made, old);
  const [after, second] = await ping();
  assert.equal(after, expectedSignature(made, second));
  const file = at.scene.path('work', 'new-secret');
  await writeFile(file, 'correct-horse-battery\n');
  assert.equal(await webhook('rotate', repository.name, id, '--secret', file), '');
  const [own, third] = await ping();
  assert.equal(own, expectedSignature('correct-horse-battery', third));
  const trail = await at.scene.admin(at.server, 'audit', '--json');
  assert.match(trail, /"action":"webhook.rotate-secret"/);
  for (const told of [trail, at.server.logs()]) {
    for (const secret of [old, made, 'correct-horse']) assert.ok(!told.includes(secret));
  }
});

test('what cannot be meant is refused and changes nothing', async () => {
  const repository = await at.make();
  const added = await webhook('add', repository.name, receiver.url(), '--json');
  const { id }: { id: string } = JSON.parse(added);
  const before = await webhook('list', repository.name, '--json');
  const refused: readonly (readonly [words: readonly string[], says: RegExp, exitCode: number])[] =
    [
      [['set', repository.name, id], /give --url, --events or both/, 2],
      [['set', repository.name, id, '--events', 'pull'], /events\.0: has to be push, create/, 1],
      [['set', repository.name, id, '--url', 'http://10.0.0.1/'], /not a public address/, 1],
      [['set', repository.name, id, '--url', 'ftp://example.org/'], /url: has to start with/, 1],
      [['set', repository.name, '0123456789abcdef', '--events', 'push'], /there is no webhook/, 1],
      [['set', '--server', id, '--events', 'push'], /there is no webhook/, 1],
      [['rotate', repository.name, '0123456789abcdef'], /there is no webhook/, 1],
    ];
  for (const [words, says, exitCode] of refused) {
    const result = await at.scene.quorate(at.server, ['webhook', ...words]);
    assert.equal(result.exitCode, exitCode, result.stdout);
    assert.match(result.stderr, says);
  }
  assert.equal(await webhook('list', repository.name, '--json'), before);
});
