import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import { never, zeroOid } from '../conformance/backend-harness.js';
import type { GitStream, PushRequest } from '../contract/backend.js';
import type { RefCommand } from '../contract/objects.js';
import type { GitCommand, GitResult, GitRunner } from '../git/git-runner.js';
import { pktText } from '../../server/wire/pkt-line.js';
import { runReceivePack } from './receive-pack.js';

// What a push is told that git does not see to its end. A git that says what a test wants.

const ref = 'refs/heads/topic/main';
const newOid = 'a'.repeat(40);
const command: RefCommand = { ref, oldOid: zeroOid, newOid };
let gitDir: string;

before(async () => (gitDir = await mkdtemp(join(tmpdir(), 'quorate-receive-pack-'))));
after(async () => await rm(gitDir, { recursive: true }));

const report = `${pktText('unpack ok\n')}${pktText(`ok ${ref}\n`)}0000`;
const answer = `${pktText(`\x01${report}`)}0000`;

interface Play {
  readonly answer?: Readable;
  readonly exit?: { readonly exitCode: number | null; readonly signal: string | null };
  /** What the refs are afterwards: `oid name` lines of ls-refs. */
  readonly refs?: () => GitResult;
  readonly signal?: AbortSignal;
}

const noRefs = (): GitResult => ({
  exitCode: 0,
  signal: null,
  stdout: Buffer.from(`${pktText('unborn HEAD symref-target:refs/heads/main\n')}0000`),
  stderr: '',
});

function notAsked(): never {
  throw new Error('not asked for');
}

function runnerOf(play: Play): GitRunner {
  return {
    version: '2.39.5',
    conversations: 0,
    running: 0,
    run: async () => (play.refs ?? noRefs)(),
    stream: async ({ stdin }: GitCommand): Promise<GitStream> => {
      if (stdin instanceof Readable) stdin.resume();
      const stdout = play.answer ?? Readable.from([Buffer.from(answer)]);
      const exit = play.exit ?? { exitCode: 0, signal: null };
      return { stdout, exited: Promise.resolve({ ...exit, stderr: '' }), kill: () => {} };
    },
    converse: notAsked,
    program: notAsked,
    close: () => Promise.resolve(),
  };
}

function pushing(play: Play): ReturnType<typeof runReceivePack> {
  const request: PushRequest = {
    pushId: 'push',
    actor: 'ann',
    commands: [command],
    refused: new Map(),
    atomic: false,
    pushOptions: [],
    pack: undefined,
    shallow: [],
    progress: () => {},
    quiet: true,
    signal: play.signal ?? never(),
  };
  return runReceivePack({
    git: runnerOf(play),
    clock: { nowMs: () => 0 },
    gitDir,
    config: { objectFormat: 'sha1', settings: {}, has: () => false },
    request,
    commands: [command],
    confirm: () => Promise.resolve(),
  });
}

const brokenOff = (): Readable =>
  Readable.from(
    (async function* () {
      yield Buffer.from(answer.slice(0, 8));
      throw Object.assign(new Error('reset'), { code: 'ECONNRESET' });
    })(),
  );

test('what git reports is the result', async () => {
  const { refs } = await pushing({});
  assert.deepEqual(refs, [{ ref, status: 'ok', oldOid: zeroOid, newOid }]);
});

test('git that ended without a word and changed nothing: nothing was changed', async () => {
  const failed = { exitCode: 1, signal: null };
  await assert.rejects(pushing({ answer: Readable.from([]), exit: failed }), {
    code: 'storage-failure',
  });
});

const updated = (): GitResult => ({
  ...noRefs(),
  stdout: Buffer.from(
    `${pktText('unborn HEAD symref-target:refs/heads/main\n')}${pktText(`${newOid} ${ref}\n`)}0000`,
  ),
});
const unreadable = (): GitResult => ({ ...noRefs(), exitCode: 128, stderr: 'fatal: no' });

for (const { desc, play } of [
  { desc: 'ended without a word after it had changed something', play: { refs: updated } },
  { desc: 'ended unseen', play: { exit: { exitCode: null, signal: null } } },
  { desc: 'ended, and its refs cannot be read', play: { refs: unreadable } },
  {
    desc: 'was cut off after it had changed something',
    play: { answer: brokenOff(), refs: updated },
  },
]) {
  test(`nobody knows what became of a push whose git ${desc}`, async () => {
    await assert.rejects(pushing({ answer: Readable.from([]), ...play }), {
      code: 'outcome-unknown',
    });
  });
}

test('a push that was applied, and that the disk fails to keep, is not told as refused', async () => {
  await mkdir(join(gitDir, 'refs/heads'), { recursive: true });
  await symlink('topic', join(gitDir, 'refs/heads/topic'));
  await assert.rejects(pushing({}), { code: 'outcome-unknown' });
});
