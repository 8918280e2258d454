import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { Oid } from '../contract/objects.js';
import { refsWithout } from '../contract/visible-refs.js';
import type { GitRunner } from './git-runner.js';
import { readRefSnapshot } from './ref-snapshot.js';
import { writeRefView } from './ref-view.js';
import { createGitRunner } from './runner.js';
import { noMeter, quietLogger, TestRepository } from './testing/repository.js';

describe('ref view', () => {
  let git: GitRunner;
  let repository: TestRepository;
  let view: string;
  let client: string;
  let commits: Oid[];

  before(async () => {
    git = await createGitRunner({ logger: quietLogger, meter: noMeter });
  });
  after(() => git.close());
  beforeEach(() => {
    repository = new TestRepository();
    view = join(repository.directory, 'view');
    client = mkdtempSync(join(tmpdir(), 'quorate-test-client-'));
    execFileSync('git', ['init', '--quiet', '--bare', client]);
    commits = [];
    for (let n = 0; n < 6; n++) commits.push(repository.commit(commits.slice(-1)));
    const [, second = '', , fourth = '', , last = ''] = commits;
    set('refs/heads/main', last);
    set('refs/heads/old', second);
    set('refs/hidden/secret', repository.commit([last]));
    set('refs/tags/v1', repository.tag('v1', fourth));
  });
  afterEach(() => {
    repository.remove();
    rmSync(client, { recursive: true, force: true });
  });

  function set(ref: string, oid: Oid): void {
    repository.git(['update-ref', ref, oid]);
  }

  async function write(hidden: readonly string[] = ['refs/hidden']): Promise<void> {
    await writeRefView({
      directory: view,
      snapshot: await readRefSnapshot({ git, gitDir: repository.gitDir, generation: 1 }),
      visible: refsWithout(hidden),
      objectsDir: repository.objectsDir,
      objectFormat: commits[0]?.length === 64 ? 'sha256' : 'sha1',
    });
  }

  /** What a git client gets from the view, as `git upload-pack` of the version on this machine serves it. */
  function fetch(...args: string[]): string {
    const command = ['--git-dir', client, '-c', 'protocol.version=2', 'fetch', '--quiet'];
    return execFileSync('git', [...command, ...args], { encoding: 'utf8', stdio: 'pipe' });
  }

  /** The same, where the client asks by name. Not for shallow fetches: git 2.39 sends its sections in the wrong order. */
  function fetchByName(...args: string[]): string {
    return fetch('--upload-pack', 'git -c uploadpack.allowRefInWant=true upload-pack', ...args);
  }

  function inClient(...args: string[]): string {
    return execFileSync('git', ['--git-dir', client, ...args], { encoding: 'utf8' }).trim();
  }

  it('shows exactly the visible refs of its generation, peeled, whatever is pushed meanwhile', async () => {
    repository.git(['symbolic-ref', 'refs/remotes/o/HEAD', 'refs/heads/main']);
    repository.git(['symbolic-ref', 'refs/remotes/o/hidden', 'refs/hidden/secret']);
    const expected = repository
      .git(['ls-remote', '--symref', repository.gitDir])
      .split('\n')
      .filter((line) => !line.includes('hidden'));
    await write();
    set('refs/heads/main', commits[0] ?? '');
    set('refs/heads/new', commits[0] ?? '');
    repository.git(['update-ref', '-d', 'refs/heads/old']);
    for (const version of ['0', '2']) {
      const shown = repository
        .git(['-c', `protocol.version=${version}`, 'ls-remote', '--symref', view])
        .split('\n');
      assert.deepEqual(shown.filter(isValue), expected.filter(isValue));
    }
  });

  it('serves want-ref, include-tag and deepen-not', async () => {
    await write();
    fetchByName(view, 'refs/heads/main:refs/heads/main');
    assert.equal(inClient('rev-parse', 'main'), commits[5]);
    // Auto-followed, since the server sends the tag with the commit (include-tag).
    assert.equal(inClient('rev-parse', 'v1^{}'), commits[3]);

    rmSync(client, { recursive: true, force: true });
    execFileSync('git', ['init', '--quiet', '--bare', client]);
    fetch('--no-tags', '--shallow-exclude=v1', view, 'refs/heads/main:refs/heads/main');
    assert.equal(inClient('rev-list', '--count', 'main'), '2');
  });

  it('does not let hidden refs be wanted or excluded', async () => {
    await write();
    assert.throws(() => fetch(view, 'refs/hidden/secret:refs/heads/x'));
    assert.throws(() => fetchByName(view, 'refs/hidden/secret:refs/heads/x'));
    assert.throws(() =>
      fetch('--shallow-exclude=refs/hidden/secret', view, 'refs/heads/main:refs/heads/x'),
    );
    // The name alone is what is refused: shown, the same ref can be fetched.
    rmSync(view, { recursive: true });
    await write([]);
    fetchByName(view, 'refs/hidden/secret:refs/heads/x');
    fetch('--shallow-exclude=refs/tags/v1', view, 'refs/heads/main:refs/heads/y');
  });

  it('uses the bitmaps and the commit-graph of the repository, across a repack', async () => {
    repository.git(['repack', '-a', '-d', '--quiet', '--write-bitmap-index']);
    repository.git(['commit-graph', 'write', '--reachable', '--no-progress']);
    await write();
    const inView = (...args: string[]): string =>
      execFileSync('git', ['--git-dir', view, ...args], { encoding: 'utf8', stdio: 'pipe' });
    inView('rev-list', '--test-bitmap', 'HEAD');
    inView('commit-graph', 'verify', '--no-progress');
    const bitmaps = repository.git(['count-objects', '-v']);
    assert.match(bitmaps, /packs: 1/);
    set('refs/heads/more', repository.commit([commits[5] ?? '']));
    repository.git(['repack', '-a', '-d', '--quiet']);
    fetch(view, 'refs/heads/main:refs/heads/main');
  });

  it('serves upload-archive', async () => {
    await write();
    const archive = execFileSync('git', ['archive', `--remote=${view}`, 'main']);
    assert.ok(archive.length > 0);
    assert.throws(() =>
      execFileSync('git', ['archive', `--remote=${view}`, 'refs/hidden/secret'], { stdio: 'pipe' }),
    );
  });

  it('has a detached, an unborn and a hidden HEAD', async () => {
    repository.git(['update-ref', '--no-deref', 'HEAD', commits[2] ?? '']);
    await write();
    assert.match(repository.git(['ls-remote', view, 'HEAD']), new RegExp(`^${commits[2]}\tHEAD$`));
    rmSync(view, { recursive: true });
    repository.git(['symbolic-ref', 'HEAD', 'refs/heads/main']);
    await write(['refs/heads/main']);
    assert.equal(repository.git(['ls-remote', view, 'HEAD']), '');
    fetch(view, 'refs/heads/old:refs/heads/old');
  });

  it('serves a repository that is shallow itself', async () => {
    writeFileSync(join(repository.gitDir, 'shallow'), `${commits[4]}\n`);
    await write();
    fetch('--update-shallow', view, 'refs/heads/main:refs/heads/main');
    assert.equal(inClient('rev-list', '--count', 'main'), '2');
  });

  it('of a SHA-256 repository', async () => {
    repository.remove();
    repository = new TestRepository('sha256');
    view = join(repository.directory, 'view');
    commits = [repository.commit()];
    set('refs/heads/main', commits[0] ?? '');
    await write();
    assert.equal(repository.git(['ls-remote', view, 'main']), `${commits[0]}\trefs/heads/main`);
  });
});

/** Version 0 tells the targets of symbolic refs for HEAD only. */
function isValue(line: string): boolean {
  return !line.startsWith('ref: refs/heads/main\trefs/');
}
