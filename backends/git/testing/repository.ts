import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock, Logger, Meter } from '../../contract/environment.js';
import type { ObjectFormat, Oid } from '../../contract/objects.js';

/** What tests of this folder share: real repositories, a real clock, and a look at processes. */

export const zero: Oid = '0'.repeat(40);

export const realClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    delay(ms, undefined, { ref: false, ...(signal === undefined ? {} : { signal }) }).catch(
      () => undefined,
    ),
};

export const quietLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quietLogger,
};

export const noMeter: Meter = {
  count: () => undefined,
  observe: () => undefined,
  gauge: () => undefined,
};

/** A bare repository made at run time. */
export class TestRepository {
  readonly directory = mkdtempSync(join(tmpdir(), 'quorate-test-'));
  readonly gitDir = join(this.directory, 'repository.git');
  /** The empty tree, which every commit here has unless it is given another. */
  readonly tree: Oid;
  #commits = 0;

  constructor(objectFormat: ObjectFormat = 'sha1') {
    const format = `--object-format=${objectFormat}`;
    execFileSync('git', [
      'init',
      '--quiet',
      '--bare',
      '--initial-branch=main',
      format,
      this.gitDir,
    ]);
    this.tree = this.git(['mktree'], '');
  }

  get objectsDir(): string {
    return join(this.gitDir, 'objects');
  }

  /** Runs git here and returns its trimmed output; throws when it fails. */
  git(args: readonly string[], input = '', env: Record<string, string> = {}): string {
    return execFileSync('git', ['--git-dir', this.gitDir, ...args], {
      input,
      encoding: 'utf8',
      maxBuffer: 1 << 30,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...identity, ...env },
    }).trim();
  }

  /** A commit of its own, with the parents given. */
  commit(parents: readonly Oid[] = [], tree = this.tree, env: Record<string, string> = {}): Oid {
    const message = `commit ${++this.#commits}`;
    const parentArgs = parents.flatMap((parent) => ['-p', parent]);
    return this.git(['commit-tree', '-m', message, ...parentArgs, tree], '', env);
  }

  /** An annotated tag object, without a ref. */
  tag(name: string, target: Oid, type = 'commit'): Oid {
    return this.git(
      ['mktag'],
      `object ${target}\ntype ${type}\ntag ${name}\ntagger T <t@example.com> 1700000000 +0000\n\nx\n`,
    );
  }

  /** `name value` of every ref, as git lists them. */
  refs(): string[] {
    const listing = this.git(['for-each-ref', '--format=%(refname) %(objectname)']);
    return listing === '' ? [] : listing.split('\n');
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const identity = {
  GIT_AUTHOR_NAME: 'T',
  GIT_AUTHOR_EMAIL: 't@example.com',
  GIT_COMMITTER_NAME: 'T',
  GIT_COMMITTER_EMAIL: 't@example.com',
  GIT_CONFIG_GLOBAL: '/dev/null',
};

/** Command lines of living processes whose environment or command line holds `marker` (Linux). */
export function processesWith(marker: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => !/^\d+ \(.*\) Z/s.test(procFile(pid, 'stat')))
    .filter((pid) => ['environ', 'cmdline'].some((name) => procFile(pid, name).includes(marker)))
    .map((pid) => `${pid} ${procFile(pid, 'cmdline').replaceAll('\0', ' ').trim()}`);
}

/** Empty for a process that has gone, as those of other tests do at any time. */
export function procFile(pid: string | number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    return '';
  }
}
