import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAuthorizer } from '../auth/access-rules.js';
import type { Principal } from '../auth/principal.js';
import { codeOf, FakeService, type RequestPart } from './fake-service.js';
import type { Foresight, GitServiceName } from './git-request.js';

const path = '/team/app.git';
const services: readonly GitServiceName[] = ['git-upload-pack', 'git-receive-pack'];

const sleep = (): Promise<void> => new Promise(() => undefined);

function about(service: GitServiceName): Parameters<FakeService['foresee']>[0] {
  return { service, path, mode: 'advertise', protocol: 0 };
}

function asking(service: GitServiceName, foresight: Foresight | undefined): RequestPart {
  return { service, mode: 'advertise', path, foresight };
}

for (const service of services) {
  test(`${service}: what was looked up while it was asked who comes is not looked up again`, async () => {
    const fake = new FakeService();
    const foresight = fake.foresee(about(service));
    assert.deepEqual(fake.lookUps, ['team/app'], 'in the turn of the call');
    const { error } = await fake.talk(asking(service, foresight));
    assert.equal(error, undefined);
    assert.deepEqual(fake.lookUps, ['team/app']);
  });

  test(`${service}: nobody is let in by what was looked up`, async () => {
    const fake = new FakeService({
      decide: () => ({ allowed: false, because: 'hidden', reason: 'no' }),
    });
    const { error } = await fake.talk(asking(service, fake.foresee(about(service))));
    assert.match(error?.message ?? '', /not found/);
  });

  test(`${service}: when to find out who comes took long, it is looked up again`, async () => {
    let nowMs = 0;
    const fake = new FakeService({ clock: { nowMs: () => 0, monotonicMs: () => nowMs, sleep } });
    const foresight = fake.foresee(about(service));
    nowMs = 1_000;
    await fake.talk(asking(service, foresight));
    assert.deepEqual(fake.lookUps, ['team/app', 'team/app']);
  });

  test(`${service}: another name is looked up for itself`, async () => {
    const fake = new FakeService({ names: ['team/app', 'team/other'] });
    const foresight = fake.foresee({ ...about(service), path: 'team/other' });
    await fake.talk(asking(service, foresight));
    assert.deepEqual(fake.lookUps, ['team/other', 'team/app']);
  });
}

test('who was let in without the coordinator is served without it', async () => {
  const fake = new FakeService();
  const service = 'git-upload-pack';
  const foresight = {
    name: 'team/app',
    beganMs: 0,
    repository: Promise.reject(new Error('no coordinator')),
  };
  foresight.repository.catch(() => undefined);
  const principal: Principal = {
    kind: 'user',
    name: 'ada',
    admin: false,
    canCreate: false,
    via: { type: 'key', fingerprint: 'SHA256:x' },
    recalled: true,
  };
  const { error } = await fake.talk({ ...asking(service, foresight), principal });
  assert.equal(error, undefined);
});

test('a push that is refused whatever there is of the name looks nothing up', async () => {
  const authorizer = createAuthorizer({ autoCreate: true });
  const fake = new FakeService({
    decideAnyPush: (principal) => authorizer.decideAnyPush(principal),
  });
  for (const [mode, name] of [
    ['advertise', 'app'],
    ['stateless', 'app'],
    ['advertise', 'none'],
  ] as const) {
    const { error, output } = await fake.talk({
      service: 'git-receive-pack',
      mode,
      path: `/team/${name}.git`,
      principal: { kind: 'anonymous' },
    });
    assert.equal(codeOf(error), 'unauthenticated');
    assert.equal(error?.message, 'sign in to push');
    assert.equal(output.length, 0);
  }
  assert.deepEqual(fake.lookUps, []);
  assert.deepEqual(fake.audited, []);
});

const readers = [
  { desc: 'the refs of v0', mode: 'advertise', protocol: 0, refs: true },
  { desc: 'the capabilities of v2', mode: 'advertise', protocol: 2, refs: false },
  { desc: 'a command of v2', mode: 'stateless', protocol: 2, refs: true },
  { desc: 'a session', mode: 'session', protocol: 0, refs: false },
] as const;

for (const { desc, mode, protocol, refs } of readers) {
  test(`${desc}: ${refs ? '' : 'not '}foreseen to read the refs, once`, async () => {
    const fake = new FakeService();
    const asked = { service: 'git-upload-pack', mode, protocol } as const;
    if (mode !== 'session') fake.foresee({ ...asked, path });
    await fake.talk(asked, '0000');
    assert.deepEqual(new Set(fake.readAhead), new Set([refs]));
  });
}

test('a path that names no repository is left to be refused', () => {
  const fake = new FakeService();
  assert.equal(fake.foresee({ ...about('git-upload-pack'), path: '../etc' }), undefined);
  assert.deepEqual(fake.lookUps, []);
});
