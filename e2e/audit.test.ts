import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { createScene, type Scene, waitFor, type ServerProcess, type SshKey } from './harness.js';

let scene: Scene;
let server: ServerProcess;
let key: SshKey;
let annToken: string;

before(async () => {
  scene = await createScene();
  server = await scene.startServer({
    // Small files, so that what is asked for lies in more than one.
    flags: ['--set', 'audit.maxFileSize=2k', '--set', 'limits.pushBody=4m'],
  });
  await scene.admin(server, 'user', 'add', 'ann', '--no-create');
  await scene.admin(server, 'repo', 'create', 'team/app');
  annToken = (await scene.admin(server, 'token', 'create', 'ann')).trim();
  key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'ann', key.publicKeyFile);
});
after(() => scene.close());

type Event = Readonly<Record<string, unknown>> & { readonly details: Record<string, unknown> };

async function audit(...args: readonly string[]): Promise<readonly Event[]> {
  const text = await scene.admin(server, 'audit', '--json', ...args);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): Event => JSON.parse(line));
}

/** The newest event that fits. */
async function newest(...args: readonly string[]): Promise<Event> {
  const [event] = await audit('--limit', '1', ...args);
  assert.ok(event !== undefined, `no event for ${args.join(' ')}`);
  return event;
}

/** The newest sign-in over SSH that was refused, once its connection has ended: that may be after its client. */
async function refusedOverSsh(why: string): Promise<Event> {
  return waitFor(`a refused sign-in over SSH: ${why}`, async () => {
    const event = await newest('--event', 'authentication', '--outcome', 'refused');
    return event['transport'] === 'ssh' && event.details['why'] === why ? event : undefined;
  });
}

test('wrong credentials over HTTP, and an unknown key over SSH', async () => {
  await scene.tryGit([
    'ls-remote',
    server.httpUrl('team/app', { user: 'ann', token: 'qrt_wrong' }),
  ]);
  const http = await newest('--event', 'authentication', '--outcome', 'refused');
  assert.equal(http['transport'], 'http');
  assert.equal(http['remoteAddress'], '127.0.0.1');
  const stranger = await scene.sshKey();
  const env = await stranger.environment(server);
  await scene.tryGit(['ls-remote', server.sshUrl('team/app')], { env });
  const { details } = await refusedOverSsh('no accepted key');
  assert.equal(Array.isArray(details['keys']) ? details['keys'].length : 0, 1);
});

test('the token and the key of a disabled user: whose they are, and never the secret', async () => {
  await scene.admin(server, 'user', 'disable', 'ann');
  await scene.tryGit(['ls-remote', server.httpUrl('team/app', { user: 'x', token: annToken })]);
  const http = await newest('--event', 'authentication', '--outcome', 'refused');
  assert.deepEqual([http['actor'], http['transport']], ['ann', 'http']);
  const [token = {}] = JSON.parse(await scene.admin(server, '--json', 'token', 'list', 'ann'));
  assert.deepEqual(http.details, { how: 'token', problem: 'disabled user', token: token.id });
  await scene.quorate(server, ['repo', 'list'], { token: annToken });
  const api = await newest('--event', 'authentication', '--outcome', 'refused');
  assert.deepEqual([api['actor'], api['transport']], ['ann', 'admin']);
  assert.deepEqual(api.details, http.details);
  const env = await key.environment(server);
  await scene.tryGit(['ls-remote', server.sshUrl('team/app')], { env });
  await refusedOverSsh('disabled user ann');
  const all = JSON.stringify(await audit('--limit', '1000'));
  assert.ok(!all.includes(annToken));
  await scene.admin(server, 'user', 'enable', 'ann');
});

test('a repository that one may not see, over both transports', async () => {
  await scene.tryGit(['ls-remote', server.httpUrl('team/app', { user: 'ann', token: annToken })]);
  const env = await key.environment(server);
  await scene.tryGit(['ls-remote', server.sshUrl('team/app')], { env });
  const events = await audit('--user', 'ann', '--event', 'access', '--repo', 'team/app');
  assert.deepEqual(
    events.map((event) => [event['outcome'], event['transport'], event.details['code']]),
    [
      ['refused', 'ssh', 'not-found'],
      ['refused', 'http', 'not-found'],
    ],
  );
});

test('a push without the right to it, a refused ref, a push that is too large', async () => {
  await scene.admin(server, 'repo', 'grant', 'team/app', 'ann', 'read');
  const granted = await newest('--event', 'admin', '--repo', 'team/app');
  assert.equal(granted.details['action'], 'repository.grant');
  const repository = await scene.makeRepository({ commits: 2 });
  const url = server.httpUrl('team/app', { user: 'ann', token: annToken });
  await scene.tryGit(['push', url, 'main'], { cwd: repository });
  const denied = await newest('--user', 'ann', '--event', 'access');
  assert.equal(denied.details['code'], 'permission-denied');
  assert.equal(denied.details['service'], 'git-receive-pack');

  await scene.git(['push', server.httpUrl('team/app'), 'main'], { cwd: repository });
  await scene.tryGit(['push', server.httpUrl('team/app'), ':main'], { cwd: repository });
  const refused = await newest('--event', 'push', '--outcome', 'refused');
  assert.match(JSON.stringify(refused.details['refs']), /"status":"refused","reason":"deletion/);

  await scene.commit(repository, 'noise', randomBytes(6_000_000).toString('hex'));
  await scene.tryGit(['push', server.httpUrl('team/app'), 'main:large'], { cwd: repository });
  const large = await newest('--event', 'limit');
  assert.equal(large.details['status'], 413);
});

test('changes and refused changes of the admin API', async () => {
  const token = annToken;
  await scene.quorate(server, ['user', 'add', 'bob'], { token });
  const refused = await newest('--user', 'ann', '--event', 'admin');
  assert.equal(refused['outcome'], 'refused');
  assert.equal(refused.details['action'], 'user.create');
});

test('filters by time, pages over rotated files, tables for people', async () => {
  assert.deepEqual(await audit('--until', '2026-01-01T00:00Z', '--since', '2025-01-01T00:00Z'), []);
  const all = await audit('--limit', '1000');
  assert.ok(all.length > 20);
  const times = all.map((event) => String(event['time']));
  assert.deepEqual(times, times.toSorted().toReversed());
  const last = all.at(-1);
  assert.equal(last?.details['action'], 'first start', 'the first event is there, files later');
  const shown = await scene.admin(server, 'audit', '--since', '1h', '--limit', '5');
  assert.match(shown, /^TIME \(UTC\) +EVENT +OUTCOME +ACTOR/);
  const wrong = await scene.quorate(server, ['audit', '--since', 'yesterday']);
  assert.equal(wrong.exitCode, 2);
  const forbidden = await scene.quorate(server, ['audit'], { token: annToken });
  assert.match(forbidden.stderr, /needs a server administrator/);
});
