import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { Oid, RefCommand } from '../contract/objects.js';
import { until } from '../contract/testing/until.js';
import { failedAt, type FileStep, takeFileSteps, type TakeFileSteps } from './file-steps.js';
import type { GitRunner } from './git-runner.js';
import { arePlainMoves } from './ref-moves.js';
import { createRefTransactions, type RefTransactions } from './ref-transaction.js';
import { createGitRunner } from './runner.js';
import { noMeter, quietLogger, realClock, TestRepository, zero } from './testing/repository.js';

describe('branches that move as files', () => {
  let git: GitRunner;
  let repository: TestRepository;
  let refs: RefTransactions;
  let one: Oid;
  let two: Oid;
  let moves: readonly RefCommand[];
  let asked: number;
  let taken: FileStep[];
  /** The step that fails. */
  let failing: (step: FileStep) => boolean;

  const files: TakeFileSteps = async (steps) => {
    for (const [index, step] of steps.entries()) {
      if (failing(step)) throw failedAt(index, new Error('EIO'));
      taken.push(step);
      await takeFileSteps([step]).catch((error: unknown) => {
        throw failedAt(index, error);
      });
    }
  };
  const at = (name: string): string => join(repository.gitDir, name);
  const commits = (): ReadonlySet<Oid> => new Set([two]);
  const move = (more: { readonly after?: readonly FileStep[] } = {}): Promise<void> =>
    refs.commitEither(repository.gitDir, moves, { commits: commits(), ...more });
  const moved = (): readonly string[] => [`refs/heads/a ${two}`, `refs/heads/d/b ${two}`];
  const locks = (): readonly string[] =>
    readdirSync(at('refs'), { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('.lock'),
    );

  before(async () => {
    git = await createGitRunner({ logger: quietLogger, meter: noMeter });
  });
  after(() => git.close());
  beforeEach(async () => {
    repository = new TestRepository();
    one = repository.commit();
    two = repository.commit([one]);
    [asked, taken, failing] = [0, [], () => false];
    const counted: GitRunner = {
      version: git.version,
      conversations: git.conversations,
      get running() {
        return git.running;
      },
      run: (command) => git.run(command),
      stream: (command) => git.stream(command),
      converse: (command) => {
        asked += 1;
        return git.converse(command);
      },
      program: (command) => git.program(command),
      close: () => git.close(),
    };
    refs = createRefTransactions({ git: counted, clock: realClock, files });
    moves = ['refs/heads/a', 'refs/heads/d/b'].map((ref) => ({ ref, oldOid: one, newOid: two }));
    for (const { ref } of moves) repository.git(['update-ref', ref, one]);
  });
  afterEach(async () => {
    await refs.close();
    repository.remove();
  });

  it('are locked, compared and renamed between what comes before and what comes after', async () => {
    const first: FileStep = { do: 'write', path: at('first'), text: '' };
    const last: FileStep = { do: 'write', path: at('last'), text: '' };
    await refs.commitEither(repository.gitDir, moves, {
      commits: commits(),
      before: [first],
      after: [last],
    });
    assert.equal(asked, 0);
    assert.deepEqual([repository.refs(), locks()], [moved(), []]);
    assert.deepEqual(
      taken.map((step) => [
        step.do,
        relative(repository.gitDir, 'path' in step ? step.path : step.to),
        'sync' in step && step.sync,
      ]),
      [
        ['write', 'first', false],
        ['write', 'refs/heads/a.lock', true],
        ['expect-text', 'refs/heads/a', false],
        ['write', 'refs/heads/d/b.lock', true],
        ['expect-text', 'refs/heads/d/b', false],
        ['rename', 'refs/heads/a', false],
        ['rename', 'refs/heads/d/b', false],
        ['sync', 'refs/heads', false],
        ['sync', 'refs', false],
        ['sync', 'refs/heads/d', false],
        ['write', 'last', false],
      ],
    );
  });

  it('are for git when they are packed, or moved already, or one of them', async () => {
    repository.git(['pack-refs', '--all', '--prune']);
    await move();
    assert.deepEqual([repository.refs(), locks(), asked], [moved(), [], 1]);
    await move({ after: [{ do: 'write', path: at('last'), text: '' }] });
    assert.ok(existsSync(at('last')));
    repository.git(['update-ref', 'refs/heads/a', one]);
    await move();
    assert.deepEqual([repository.refs(), locks()], [moved(), []]);
  });

  it('are not moved when one has another value, and nothing is left', async () => {
    repository.git(['update-ref', 'refs/heads/d/b', repository.commit()]);
    const before = repository.refs();
    await assert.rejects(move({ after: [{ do: 'write', path: at('last'), text: '' }] }), {
      code: 'failed-precondition',
      details: { refs: ['refs/heads/d/b'] },
    });
    assert.deepEqual([repository.refs(), locks(), existsSync(at('last'))], [before, [], false]);
  });

  it('wait for a lock that somebody else has, who keeps it', async () => {
    writeFileSync(at('refs/heads/d/b.lock'), 'theirs');
    const moving = move();
    await until('git to be asked', () => asked > 0);
    assert.equal(readFileSync(at('refs/heads/d/b.lock'), 'utf8'), 'theirs');
    rmSync(at('refs/heads/d/b.lock'));
    await moving;
    assert.deepEqual([repository.refs(), locks()], [moved(), []]);
  });

  it('are finished by git when a rename fails half-way', async () => {
    failing = (step) => step.do === 'rename' && step.to === at('refs/heads/d/b');
    await move();
    assert.equal(asked, 2);
    assert.deepEqual([repository.refs(), locks()], [moved(), []]);
  });

  it('leave what comes before them to the caller when that fails', async () => {
    const before: readonly FileStep[] = [{ do: 'sync', path: at('absent') }];
    await assert.rejects(
      refs.commitEither(repository.gitDir, moves, { commits: commits(), before }),
      { code: 'ENOENT' },
    );
    assert.deepEqual([asked, locks()], [0, []]);
  });

  it('are such that go from a commit to one that is known, and no others', () => {
    const main: RefCommand = { ref: 'refs/heads/a', oldOid: one, newOid: two };
    assert.ok(arePlainMoves([main, { ...main, ref: 'refs/heads/d/b' }], commits()));
    for (const updates of [
      [],
      [main, main],
      [{ ...main, oldOid: zero }],
      [{ ...main, newOid: zero }],
      [{ ...main, oldOid: two }],
      [{ ...main, newOid: one }],
      [{ ...main, ref: 'refs/tags/a' }],
      [{ ...main, ref: 'refs/heads/../../../a' }],
      [{ ...main, ref: 'refs/heads/a.lock' }],
      Array.from({ length: 17 }, (_, n) => ({ ...main, ref: `refs/heads/${n}` })),
    ]) {
      assert.equal(arePlainMoves(updates, commits()), false);
    }
  });
});
