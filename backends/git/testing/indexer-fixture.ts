/** A repository, a git runner and a quarantine for tests of the pack indexer. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger, Meter } from '../../contract/environment.js';
import { asQuorateError, type ErrorCode } from '../../contract/errors.js';
import type { GitRunner } from '../git-runner.js';
import type { IndexedPack, IndexPackRequest, PackIndexer } from '../pack-indexer.js';
import { createGitRunner } from '../runner.js';

export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLogger,
};
export const idleMeter: Meter = { count() {}, observe() {}, gauge() {} };

export interface Fixture {
  readonly root: string;
  readonly gitDir: string;
  readonly objectsDir: string;
  readonly packDir: string;
  readonly git: GitRunner;
  /** Runs git in the repository and answers its stdout. */
  run(args: readonly string[], input?: string | Uint8Array): Buffer;
  /** Writes an object into the repository, unchecked. */
  write(type: string, content: string | Uint8Array): string;
  /** Indexes into the quarantine and says how it ended, with the files left. The quarantine is emptied. */
  index(indexer: PackIndexer, pack: PackInput, more?: Partial<IndexPackRequest>): Promise<Ending>;
  close(): Promise<void>;
}

export type PackInput = Uint8Array | AsyncIterable<Uint8Array>;

export interface Ending {
  readonly result?: IndexedPack;
  readonly code?: ErrorCode;
  readonly message?: string;
  readonly files: readonly string[];
}

const environment = {
  PATH: process.env['PATH'] ?? '',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_AUTHOR_NAME: 'A',
  GIT_AUTHOR_EMAIL: 'a@example.org',
  GIT_COMMITTER_NAME: 'A',
  GIT_COMMITTER_EMAIL: 'a@example.org',
};

export async function createFixture(objectFormat: 'sha1' | 'sha256' = 'sha1'): Promise<Fixture> {
  const root = mkdtempSync(join(tmpdir(), 'quorate-indexer-'));
  const gitDir = join(root, 'repository');
  const packDir = join(root, 'quarantine', 'pack');
  mkdirSync(packDir, { recursive: true });
  const run = (args: readonly string[], input: string | Uint8Array = ''): Buffer =>
    execFileSync('git', [...args], {
      cwd: root,
      input,
      env: { ...environment, GIT_DIR: gitDir },
      maxBuffer: 2 ** 30,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  run(['init', '-q', '--bare', '-b', 'main', `--object-format=${objectFormat}`]);
  const git = await createGitRunner({ logger: silentLogger, meter: idleMeter, helpers: 1 });
  return {
    root,
    gitDir,
    objectsDir: join(gitDir, 'objects'),
    packDir,
    git,
    run,
    write: (type, content) =>
      run(['hash-object', '-t', type, '-w', '--literally', '--stdin'], content).toString().trim(),
    async index(indexer, pack, more = {}) {
      const request: IndexPackRequest = {
        pack: pack instanceof Uint8Array ? chunked(pack) : pack,
        quarantinePackDir: packDir,
        objectsDir: join(gitDir, 'objects'),
        objectFormat,
        maxPackBytes: 0,
        maxObjectBytes: 0,
        fsck: { enabled: true, ignore: [] },
        signal: new AbortController().signal,
        progress: () => {},
        ...more,
      };
      let ending: { result?: IndexedPack; code?: ErrorCode; message?: string };
      try {
        ending = { result: await indexer.index(request) };
      } catch (error) {
        const { code, message } = asQuorateError(error);
        ending = { code, message };
      }
      const files = readdirSync(packDir).sort();
      for (const file of files) rmSync(join(packDir, file));
      return { ...ending, files };
    },
    async close() {
      await git.close();
      rmSync(root, { recursive: true, force: true });
    },
  };
}

/** Uneven pieces, so that nothing relies on where they end. */
async function* chunked(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (let size = 5; at < bytes.byteLength; size = Math.min(size * 3, 65_536)) {
    yield bytes.subarray(at, at + size);
    at += size;
  }
}
