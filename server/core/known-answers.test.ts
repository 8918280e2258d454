import assert from 'node:assert/strict';
import { test } from 'node:test';
import { writeCommandRequest } from '../wire/v2-request.js';
import { FakeService, oidOf, snapshotOf } from './fake-service.js';
import { KnownAnswers } from './known-answers.js';
import { RefView } from './ref-view.js';
import { allRefs } from '../../backends/contract/visible-refs.js';

const main = { name: 'refs/heads/main', oid: oidOf('a') };
const moved = { name: 'refs/heads/main', oid: oidOf('d') };
const secret = { name: 'refs/secret/x', oid: oidOf('b') };

const v2 = { service: 'git-upload-pack', mode: 'stateless', protocol: 2 } as const;
const outcome = { status: 'ok', exitCode: 0, fields: {} } as const;

function command(name: string, args: readonly string[], format = 'sha1'): string {
  return writeCommandRequest({
    command: name,
    capabilities: [{ name: 'object-format', value: format }],
    args,
  });
}

const ask = command('ls-refs', ['ref-prefix refs/heads/main']);

test('an answer that was made is known afterwards, as it was', async () => {
  const service = new FakeService({ refs: [main] });
  assert.equal(await service.known(v2, ask), undefined);
  const made = await service.talk(v2, ask);
  const known = await service.known(v2, ask);
  assert.equal(known?.text, made.output.toString('latin1'));
  assert.deepEqual(known.outcome, made.outcome);
  assert.equal(await service.known(v2, command('ls-refs', ['ref-prefix refs/tags/'])), undefined);
  assert.equal(service.sessions, 0);
});

test('what was known of one generation is not known of the next', async () => {
  const service = new FakeService({ refs: [main] });
  await service.talk(v2, ask);
  service.setRefs([moved]);
  assert.equal(await service.known(v2, ask), undefined);
  await service.talk(v2, ask);
  assert.match((await service.known(v2, ask))?.text ?? '', /d{40} refs\/heads\/main/);
});

test('what was known before refs were hidden is not known afterwards', async () => {
  const all = command('ls-refs', []);
  const service = new FakeService({ refs: [main, secret] });
  await service.talk(v2, all);
  assert.match((await service.known(v2, all))?.text ?? '', /refs\/secret/);
  service.setSettings({ 'transfer.hideRefs': 'refs/secret' });
  assert.equal(await service.known(v2, all), undefined);
});

test('nothing is known for who may not read', async () => {
  let allowed = true;
  const service = new FakeService({
    refs: [main],
    decide: () =>
      allowed ? { allowed } : { allowed: false, because: 'hidden', reason: 'not for you' },
  });
  await service.talk(v2, ask);
  allowed = false;
  await assert.rejects(service.known(v2, ask), { code: 'not-found' });
});

for (const { desc, part, request } of [
  { desc: 'a refused request', part: v2, request: command('ls-refs', [], 'sha256') },
  { desc: 'a fetch', part: v2, request: command('fetch', [`want ${main.oid}`, 'done']) },
  { desc: 'another protocol', part: { ...v2, protocol: 0 } as const, request: ask },
  { desc: 'bytes behind the request', part: v2, request: `${ask}0000` },
  { desc: 'a large request', part: v2, request: command('ls-refs', manyPrefixes()) },
]) {
  test(`not known: ${desc}`, async () => {
    const service = new FakeService({ refs: [main] });
    await service.talk(v2, ask);
    await service.talk(part, request);
    assert.equal(await service.known(part, request), undefined);
  });
}

function manyPrefixes(): readonly string[] {
  return Array.from({ length: 100 }, (_, index) => `ref-prefix refs/heads/some-branch-${index}`);
}

test('answers are forgotten when they take more than their budget', () => {
  const answers = new KnownAnswers(3_000);
  const view = new RefView(snapshotOf([main]), allRefs);
  answers.keep(view, 'first', { text: 'x'.repeat(1_000), outcome });
  answers.keep(view, 'second', { text: 'y'.repeat(1_000), outcome });
  assert.ok(answers.get(view, 'first') !== undefined);
  answers.keep(view, 'third', { text: 'z'.repeat(1_000), outcome });
  assert.equal(answers.get(view, 'first'), undefined);
  assert.ok(answers.get(view, 'third') !== undefined);
});
