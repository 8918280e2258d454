import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { beforeEach, test } from 'node:test';
import type { GitStream } from '../../backends/contract/backend.js';
import { QuorateError } from '../../backends/contract/errors.js';
import {
  defaultSharedRunLimits,
  type SharedAsk,
  type SharedGit,
  SharedRuns,
} from './shared-runs.js';

interface FakeGit {
  readonly stdout: PassThrough;
  readonly exit: (exitCode: number | null) => void;
  killed: boolean;
}

let gits: FakeGit[];
let counted: string[];
let wake: (() => void)[];
let nowMs: number;
let runs: SharedRuns;

beforeEach(() => {
  gits = [];
  counted = [];
  wake = [];
  nowMs = 0;
  runs = new SharedRuns(defaultSharedRunLimits, {
    clock: {
      nowMs: () => 0,
      monotonicMs: () => nowMs,
      sleep: () =>
        new Promise((resolve) => {
          wake.push(resolve);
        }),
    },
    meter: {
      count: (_name, labels) => counted.push(labels?.['outcome'] ?? ''),
      observe: () => {},
      gauge: () => {},
    },
    spoolDirectory: join(tmpdir(), `quorate-shared-runs-${process.pid}`),
  });
});

const nobody: FakeGit['exit'] = () => {};

function startGit(): Promise<GitStream> {
  const stdout = new PassThrough();
  let exit = nobody;
  const exited = new Promise<Awaited<GitStream['exited']>>((resolve) => {
    exit = (exitCode) => resolve({ exitCode, signal: null, stderr: '' });
  });
  const git: FakeGit = { stdout, exit, killed: false };
  gits.push(git);
  const kill = (): void => {
    git.killed = true;
    stdout.destroy();
    exit(null);
  };
  return Promise.resolve({ stdout, exited, kill });
}

function ask(part: Partial<SharedAsk> = {}): SharedAsk {
  return { key: 'same', signal: new AbortController().signal, start: startGit, ...part };
}

async function share(part: Partial<SharedAsk> = {}): Promise<SharedGit> {
  return (await runs.share(ask(part))).git;
}

function gitAt(index: number): FakeGit {
  const git = gits[index];
  assert.ok(git !== undefined, `git ${index} was started`);
  return git;
}

async function textOf({ stdout }: SharedGit): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const bytes of stdout) parts.push(bytes);
  return Buffer.concat(parts).toString();
}

function answer(index: number, text: string): void {
  gitAt(index).stdout.end(text);
  gitAt(index).exit(0);
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('who asks the same shares one git; who asks another, or for itself, has its own', async () => {
  const views = await Promise.all([share(), share(), share()]);
  const other = await share({ key: 'other' });
  const alone = await Promise.all([share({ key: undefined }), share({ key: undefined })]);
  assert.equal(gits.length, 4);
  for (const index of gits.keys()) answer(index, `answer ${index}`);
  assert.deepEqual(await Promise.all(views.map(textOf)), ['answer 0', 'answer 0', 'answer 0']);
  assert.equal((await views[1]?.exited)?.exitCode, 0);
  assert.equal(await textOf(other), 'answer 1');
  assert.deepEqual(await Promise.all(alone.map(textOf)), ['answer 2', 'answer 3']);
  assert.deepEqual(counted.toSorted(), [
    'joined',
    'joined',
    ...Array.from({ length: 4 }, () => 'started'),
  ]);
});

test('one that leaves ends nobody else’s git, the first one included; the last one’s goes', async () => {
  const [first, second, third] = await Promise.all([share(), share(), share()]);
  assert.ok(first && second && third);
  const { stdout } = gitAt(0);
  stdout.write('one ');
  first.kill();
  assert.equal((await first.exited).exitCode, null, 'it waits for nothing');
  second.kill();
  assert.equal(gitAt(0).killed, false);
  stdout.write('two');
  await turn();
  answer(0, '');
  assert.equal(await textOf(third), 'one two');

  const [one, two] = await Promise.all([share({ key: 'b' }), share({ key: 'b' })]);
  one.kill();
  two.kill();
  assert.equal(gitAt(1).killed, true);
  assert.equal((await two.exited).exitCode, null);
  const anew = await share({ key: 'b' });
  answer(2, 'anew');
  assert.equal(await textOf(anew), 'anew', 'nobody joins a git that was ended');
});

/** One alone, whose git answers with this. */
async function ended(text: string | Buffer, part: Partial<SharedAsk> = {}): Promise<void> {
  const git = await share(part);
  const { stdout, exit } = gitAt(gits.length - 1);
  stdout.end(text);
  exit(0);
  await textOf(git);
  await turn();
}

test('an answer that was asked for twice is given again for a moment, and not longer', async () => {
  await ended('whole');
  assert.equal(wake.length, 0, 'one that was asked for once is not kept');
  await ended('whole');
  assert.equal(gits.length, 2);
  assert.equal(await textOf(await share()), 'whole');
  assert.equal(await textOf(await share()), 'whole');
  assert.equal(gits.length, 2);
  assert.equal(wake.length, 1);
  wake[0]?.();
  await turn();
  await ended('whole');
  assert.equal(gits.length, 3);

  nowMs += defaultSharedRunLimits.keptMs;
  wake[1]?.();
  await turn();
  await ended('whole');
  assert.equal(wake.length, 2, 'that it was asked for lately is forgotten as well');
});

test('an answer that failed is not given again', async () => {
  const views = await Promise.all([share(), share()]);
  gitAt(0).stdout.end('fatal');
  gitAt(0).exit(128);
  assert.deepEqual(await Promise.all(views.map(textOf)), ['fatal', 'fatal']);
  assert.equal((await views[1]?.exited)?.exitCode, 128);
  await turn();
  await share();
  assert.equal(gits.length, 2);
});

test('answers that are kept make room for others', async () => {
  const { memoryBytes, runMemoryBytes } = defaultSharedRunLimits;
  const count = memoryBytes / runMemoryBytes + 1;
  const bytes = Buffer.alloc(runMemoryBytes);
  for (let index = 0; index < count; index++) {
    const key = String(index);
    await ended(bytes, { key });
    await ended(bytes, { key });
  }
  const started = gits.length;
  await share({ key: String(count - 1) });
  assert.equal(gits.length, started, 'the newest is there');
  await share({ key: '0' });
  assert.equal(gits.length, started + 1, 'the oldest is not');
});

test('when the first one cannot start it, those who waited do it themselves', async () => {
  let fail: ((error: Error) => void) | undefined;
  const refused = runs.share(
    ask({
      start: () =>
        new Promise((_resolve, reject) => {
          fail = reject;
        }),
    }),
  );
  const holds: boolean[] = [];
  const waiting = [share({ onHold: (held) => holds.push(held) }), share()];
  fail?.(new QuorateError('cancelled', 'the client is gone'));
  await assert.rejects(refused, { code: 'cancelled' });
  const views = await Promise.all(waiting);
  assert.equal(gits.length, 1);
  answer(0, 'theirs');
  assert.deepEqual(await Promise.all(views.map(textOf)), ['theirs', 'theirs']);
  assert.deepEqual(holds, [true, false]);
});

test('one that waits for another to start leaves when its client does', async () => {
  const first = runs.share(ask({ start: () => new Promise(() => {}) }));
  const leaving = new AbortController();
  const second = runs.share(ask({ signal: leaving.signal }));
  leaving.abort();
  await assert.rejects(second, { code: 'cancelled' });
  assert.equal(await Promise.race([first, Promise.resolve('waiting')]), 'waiting');
});
