import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { createScene, type Scene } from './harness.js';

const reporter = new URL('../../scripts/test-reporter.mjs', import.meta.url).href;

/** Two files of which one fails, and a command that runs them as `npm test` does. */
async function suite(scene: Scene): Promise<readonly string[]> {
  const head = "import { test } from 'node:test';\n";
  await writeFile(
    scene.path('a.mjs'),
    `${head}test('one', (t) => t.diagnostic('a word')); test('two', () => {});`,
  );
  await writeFile(scene.path('b.mjs'), `${head}test('no', () => { throw new Error('why'); });`);
  const flags = [`--test-reporter=${reporter}`, '--test-reporter-destination=stdout'];
  return [process.execPath, '--test', '--test-concurrency=1', ...flags, 'a.mjs', 'b.mjs'];
}

test('npm test tells of each file when it has ended, before what the tests say', async (t) => {
  const scene = await createScene(t);
  const [node = '', ...args] = await suite(scene);
  const env = { TEST_COUNTS_FILE: scene.path('counts.json') };
  const { stdout } = await scene.run(node, args, { env });
  assert.match(
    stdout,
    /^\[1\/2\] ok {5}a\.mjs \([\d.]+ s\)\n[^]*\[2\/2\] FAILED b\.mjs \([\d.]+ s\)\n/,
  );
  assert.match(stdout, /\nFAILED b\.mjs:2 no \([\d.]+ s\)\nError: why\n/);
  assert.match(stdout, / {4}2 {2}a\.mjs\n {4}1 {2}b\.mjs\n$/);
  assert.deepEqual(JSON.parse(await readFile(scene.path('counts.json'), 'utf8')), {
    passed: 2,
    failed: 1,
    skipped: 0,
  });
});

test('on a terminal it is one line that changes', async (t) => {
  const scene = await createScene(t);
  const words = (await suite(scene)).map((word) => `'${word}'`).join(' ');
  const { stdout } = await scene.run('script', ['-q', '-c', words, '/dev/null'], {
    env: { TEST_COUNTS_FILE: scene.path('counts.json'), TERM: 'xterm', SHELL: '/bin/sh' },
  });
  const states = stdout.split('\r\u001b[2K');
  assert.ok(
    states.some((state) => /^\[0\/[12]\] a\.mjs$/.test(state)),
    stdout,
  );
  assert.ok(states.includes('[2/2] 1 FAILED '), stdout);
  assert.ok(!stdout.includes('ok     a.mjs'));
});

test('a file that takes long, or whose time is up, says at which test it is', async (t) => {
  const scene = await createScene(t);
  const progress = new URL('../../scripts/test-progress.mjs', import.meta.url).href;
  await writeFile(
    scene.path('feed.mjs'),
    `import report from ${JSON.stringify(reporter)};
import { TestProgress } from ${JSON.stringify(progress)};
const of = (name, nesting, details) => ({ name, nesting, file: 'a.mjs', details });
const late = { passed: false, error: { failureType: 'testTimeoutFailure', cause: 'late' } };
const events = [
  { type: 'test:enqueue', data: of('a.mjs', 0) },
  { type: 'test:dequeue', data: of('a.mjs', 0) },
  { type: 'test:dequeue', data: of('outer', 0) },
  { type: 'test:dequeue', data: of('well', 1) },
  { type: 'test:complete', data: of('well', 1) },
  { type: 'test:dequeue', data: of('inner', 1) },
];
const progress = new TestProgress(undefined);
for (const event of events) progress.take(event, 0);
for (const nowMs of [119_000, 121_000, 123_000]) process.stdout.write(progress.linger(nowMs));
async function* happen() {
  yield* events;
  yield { type: 'test:complete', data: of('a.mjs', 0, late) };
  yield { type: 'test:fail', data: of('a.mjs', 0, late) };
}
for await (const text of report(happen())) process.stdout.write(text);
`,
  );
  const env = { TEST_COUNTS_FILE: scene.path('counts.json') };
  const { stdout } = await scene.run(process.execPath, ['feed.mjs'], { env });
  assert.match(
    stdout,
    /^\[0\/1\] \.{6} a\.mjs \(121\.0 s\): "outer" \(121\.0 s\), "inner" \(121\.0 s\)\n\[1\/1\] FAILED/,
  );
  assert.match(stdout, /its time was up at: "outer" \([\d.]+ s\), "inner" \([\d.]+ s\)\n/);
});
