import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Oid } from '../contract/objects.js';

/** A repository of a test's own: what is pushed comes from here, what is fetched is checked here. */
export interface SourceRepository {
  readonly directory: string;
  /** Runs git in it; returns stdout without the last line feed. Rejects when git fails. */
  readonly git: (...args: readonly string[]) => Promise<string>;
  readonly gitWithInput: (
    input: string | Uint8Array,
    ...args: readonly string[]
  ) => Promise<Buffer>;
  /** A commit with one file, `content` its text; no branch is moved. */
  readonly commit: (content: string, ...parents: readonly Oid[]) => Promise<Oid>;
  /** An annotated tag of an object; no ref is made. */
  readonly tag: (target: Oid, name: string) => Promise<Oid>;
  /** A thin pack of what `wants` reach and `have` do not. */
  readonly pack: (wants: readonly Oid[], have?: readonly Oid[]) => Promise<Buffer>;
  readonly remove: () => Promise<void>;
}

const environment = {
  PATH: process.env['PATH'],
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'Ann',
  GIT_AUTHOR_EMAIL: 'ann@example.org',
  GIT_AUTHOR_DATE: '1700000000 +0000',
  GIT_COMMITTER_NAME: 'Ann',
  GIT_COMMITTER_EMAIL: 'ann@example.org',
  GIT_COMMITTER_DATE: '1700000000 +0000',
};

export async function createSourceRepository(): Promise<SourceRepository> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-source-'));
  const run = (input: string | Uint8Array, args: readonly string[]): Promise<Buffer> =>
    runGit(directory, args, input);
  const git = async (...args: readonly string[]): Promise<string> =>
    (await run('', args)).toString().replace(/\n$/, '');
  await git('init', '-q', '--bare', '-b', 'main');
  return {
    directory,
    git,
    gitWithInput: (input, ...args) => run(input, args),
    commit: async (content, ...parents) => {
      const blob = (await run(content, ['hash-object', '-w', '--stdin'])).toString().trim();
      const tree = (await run(`100644 blob ${blob}\tfile\n`, ['mktree'])).toString().trim();
      return git('commit-tree', tree, ...parents.flatMap((oid) => ['-p', oid]), '-m', content);
    },
    tag: async (target, name) => {
      const type = await git('cat-file', '-t', target);
      const text = `object ${target}\ntype ${type}\ntag ${name}\ntagger Ann <ann@example.org> 1700000000 +0000\n\n${name}\n`;
      return (await run(text, ['mktag'])).toString().trim();
    },
    pack: (wants, have = []) =>
      run([...wants, ...have.map((oid) => `^${oid}`), ''].join('\n'), [
        'pack-objects',
        '--revs',
        '--stdout',
        '--thin',
        '-q',
      ]),
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}

function runGit(cwd: string, args: readonly string[], input: string | Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      'git',
      args,
      { cwd, env: environment, encoding: 'buffer', maxBuffer: 1 << 28 },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(new Error(`git ${args.join(' ')}: ${stderr.toString()}`, { cause: error }));
      },
    );
    // git may exit without reading what it was given.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}
