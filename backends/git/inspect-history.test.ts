import assert from 'node:assert/strict';
import { readdirSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { PushFact } from '../contract/inspection.js';
import type { Oid } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { type HistoryInspection, inspectHistory } from './inspect-history.js';
import { createGitRunner } from './runner.js';
import { noMeter, quietLogger, TestRepository } from './testing/repository.js';
import { until } from '../contract/testing/until.js';

let git: GitRunner;
let repository: TestRepository;
before(async () => {
  git = await createGitRunner({ logger: quietLogger, meter: noMeter });
  repository = new TestRepository();
});
after(async () => {
  await git.close();
  repository.remove();
});

function inspect(
  changes: Partial<HistoryInspection> & { readonly tip: Oid },
): AsyncGenerator<PushFact> {
  return inspectHistory({
    git,
    gitDir: repository.gitDir,
    known: [],
    commits: false,
    files: false,
    signal: new AbortController().signal,
    ...changes,
  });
}

async function all(facts: AsyncIterable<PushFact>): Promise<readonly PushFact[]> {
  const found: PushFact[] = [];
  for await (const fact of facts) found.push(fact);
  return found;
}

/** A tree of these files; a path may hold anything that git allows. */
function tree(files: Readonly<Record<string, string>>): Oid {
  const lines = Object.entries(files).map(([path, content]) => {
    const blob = repository.git(['hash-object', '-w', '--stdin'], content);
    return `100644 blob ${blob}\t${path}\0`;
  });
  return repository.git(['mktree', '-z'], lines.join(''));
}

describe('an inspection', () => {
  it('tells the new commits with parents and messages', async () => {
    const base = repository.commit();
    const side = repository.commit([base]);
    const tip = repository.commit([base, side]);
    const facts = await all(inspect({ tip, known: [base], commits: true }));
    const told = facts.map((fact) => (fact.type === 'commit' ? fact : undefined));
    assert.deepEqual(
      told.map((commit) => [commit?.oid, commit?.parents, commit?.signature]),
      [
        [tip, [base, side], undefined],
        [side, [base], undefined],
      ],
    );
    assert.ok(told.every((commit) => commit?.message?.startsWith('commit ') === true));
  });

  it('tells each path that a commit adds or changes, with its size, whatever it is called', async () => {
    const odd = 'a "path"\nwith\ttabs: and ünïcode';
    const base = repository.commit([], tree({ kept: 'k', gone: 'g', changed: '1' }));
    const tip = repository.commit([base], tree({ kept: 'k', changed: '22', [odd]: '333' }));
    const facts = await all(inspect({ tip, known: [base], files: true }));
    assert.deepEqual(facts, [
      { type: 'file', commit: tip, path: odd, sizeBytes: 3 },
      { type: 'file', commit: tip, path: 'changed', sizeBytes: 2 },
    ]);
    const root = await all(inspect({ tip: base, files: true }));
    assert.deepEqual(
      root.map((fact) => (fact.type === 'file' ? fact.path : '')),
      ['changed', 'gone', 'kept'],
    );
  });

  it('tells of a merge only what is in none of its parents', async () => {
    const base = repository.commit([], tree({ a: '1' }));
    const left = repository.commit([base], tree({ a: '1', left: 'l' }));
    const right = repository.commit([base], tree({ a: '1', right: 'r' }));
    const merged = tree({ a: '1', left: 'l', right: 'r', evil: 'eeee' });
    const tip = repository.commit([left, right], merged);
    const facts = await all(inspect({ tip, known: [left, right], files: true }));
    assert.deepEqual(facts, [{ type: 'file', commit: tip, path: 'evil', sizeBytes: 4 }]);
  });

  it('tells of submodules, whose commits are elsewhere', async () => {
    const line = `160000 commit ${'1'.repeat(40)}\tmodule\0`;
    const tip = repository.commit([], repository.git(['mktree', '-z', '--missing'], line));
    const facts = await all(inspect({ tip, files: true }));
    assert.deepEqual(facts, [{ type: 'file', commit: tip, path: 'module', sizeBytes: 0 }]);
  });

  it('sees through annotated tags, and refuses what is no commit', async () => {
    const base = repository.commit();
    const tip = repository.tag('v1', base);
    assert.equal((await all(inspect({ tip, commits: true }))).length, 1);
    const blob = repository.git(['hash-object', '-w', '--stdin'], 'x');
    await assert.rejects(all(inspect({ tip: blob, commits: true })), { code: 'invalid-argument' });
    await assert.rejects(all(inspect({ tip: '--all', commits: true })), {
      code: 'invalid-argument',
    });
  });

  it('is not misled by replacement refs', async () => {
    const bad = repository.commit([repository.commit(), repository.commit()]);
    const good = repository.commit();
    repository.git(['replace', bad, good]);
    const [first] = await all(inspect({ tip: bad, commits: true }));
    assert.equal(first?.type === 'commit' ? first.parents.length : 0, 2);
  });

  it('a message of more than a megabyte is not kept', async () => {
    const message = `subject\n\n${'m'.repeat(1024 * 1024)}`;
    const tip = repository.git(['commit-tree', '-F', '-', repository.tree], message);
    const next = repository.commit([tip]);
    const facts = await all(inspect({ tip: next, commits: true }));
    assert.deepEqual(
      facts.map((fact) => fact.type === 'commit' && fact.message === undefined),
      [false, true],
    );
  });

  it('ended early or cancelled, it leaves no git and no keyring', async () => {
    let tip = repository.commit();
    for (let count = 0; count < 20; count++) tip = repository.commit([tip]);
    for await (const fact of inspect({ tip, commits: true, files: true })) {
      assert.equal(fact.type, 'commit');
      break;
    }
    const scratchParent = join(repository.directory, 'scratch');
    mkdirSync(scratchParent);
    const signers = { ssh: '', openpgp: new Uint8Array() };
    const cancelled = new AbortController();
    const facts = inspect({ tip, commits: true, signers, scratchParent, signal: cancelled.signal });
    await facts.next();
    cancelled.abort();
    await facts.return(undefined);
    assert.deepEqual(readdirSync(scratchParent), []);
    await until('all gits are gone', () => git.running === 0);
  });
});
