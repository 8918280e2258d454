import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { QuorateError } from '../../backends/contract/errors.js';
import { until } from '../../backends/contract/testing/until.js';
import { codeOf, FakeService } from './fake-service.js';
import {
  create,
  pushOf,
  remove,
  reported,
  service,
  session,
  stateless,
} from './testing/push-talk.js';

test('the first push creates its repository, the pusher’s own, with the branch that is pushed', async () => {
  const fake = new FakeService({ names: [] });
  const advertised = await fake.talk({ service, mode: 'advertise' });
  assert.match(advertised.output.toString(), / capabilities\^\{\}\0/);
  assert.equal(fake.created.length, 0, 'asking creates nothing');
  const trunk = { ...create, ref: 'refs/heads/trunk' };
  assert.equal((await reported(await fake.talk(stateless, pushOf([trunk])))).unpack, 'ok');
  const [made] = fake.created;
  assert.deepEqual(
    [made?.name, made?.defaultBranch, made?.access],
    ['team/app', 'trunk', { public: false, grants: { ann: 'admin' } }],
  );
});

for (const code of ['already-exists', 'failed-precondition', 'unavailable'] as const) {
  test(`why the repository cannot be created (${code}) is told in git's form`, async () => {
    const creationError = new QuorateError(code, 'team is a repository');
    const fake = new FakeService({ names: [], creationError });
    for (const part of [stateless, session]) {
      const { outcome, error, output } = await fake.talk(part, pushOf([create]));
      assert.equal(error, undefined);
      assert.equal(outcome?.exitCode, 128);
      assert.match(output.toString('latin1'), /\x03team is a repository0000$/);
    }
  });
}

test('a push that brings nothing creates nothing', async () => {
  const fake = new FakeService({ names: [] });
  for (const command of [remove, { ...create, ref: 'refs/bad..name' }]) {
    const { outcome } = await fake.talk(stateless, pushOf([command]));
    assert.equal(outcome?.status, 'refused');
  }
  assert.equal(fake.created.length, 0);
});

const decisions = [
  { because: 'sign-in', code: 'unauthenticated' },
  { because: 'hidden', code: 'not-found' },
  { because: 'denied', code: 'permission-denied' },
] as const;

for (const { because, code } of decisions) {
  test(`access refused (${because}) is ${code}, before anything is written`, async () => {
    const fake = new FakeService({ decide: () => ({ allowed: false, because, reason: 'why' }) });
    for (const part of [
      stateless,
      session,
      { service: 'git-upload-pack', mode: 'session' } as const,
    ]) {
      const { error, output } = await fake.talk(part, pushOf([create]));
      assert.equal(codeOf(error), code);
      assert.equal(output.length, 0);
      if (because === 'hidden') assert.ok(error?.message.includes('why') === false);
    }
  });
}

test('what was allowed when the session began is asked again when the commands are there', async () => {
  let allowed = true;
  const client = new PassThrough();
  const fake = new FakeService({
    decide: () => (allowed ? { allowed } : { allowed, because: 'denied', reason: 'not any more' }),
  });
  const talking = fake.talk(session, client);
  await until(
    'the session to read',
    () => fake.sessions > 0 || client.listenerCount('readable') > 0,
  );
  allowed = false;
  client.write(pushOf([create]));
  const { output, outcome } = await talking;
  assert.match(output.toString(), /not any more/);
  assert.equal(outcome?.exitCode, 128);
  assert.equal(fake.pushed.length, 0);
  client.destroy();
});

test('a hostile path is no repository', async () => {
  const { error } = await new FakeService().talk({ ...stateless, path: '/../etc.git' });
  assert.equal(codeOf(error), 'invalid-argument');
});
