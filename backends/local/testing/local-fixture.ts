import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { openEmbeddedCoordinator } from '../../coordination/embedded/embedded-coordinator.js';
import { createProcessLease } from '../../coordination/process-lease.js';
import { silentLogger } from '../../coordination/test-environment.js';
import type { Backend, PushRequest, PushResult } from '../../contract/backend.js';
import type { Coordinator } from '../../contract/coordinator.js';
import type { Clock, Meter, Random } from '../../contract/environment.js';
import type { ObjectFormat, RefCommand } from '../../contract/objects.js';
import type { PushJudges, PushPipeline } from '../../contract/pipeline.js';
import type { Repository } from '../../contract/repository.js';
import { createPackIndexer } from '../../git/indexer.js';
import { createGitRunner } from '../../git/runner.js';
import { createLocalBackend } from '../local-backend.js';

export const zeroOid = '0'.repeat(40);

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    await delay(ms, undefined, { ref: false, ...(signal === undefined ? {} : { signal }) }).catch(
      () => undefined,
    );
  },
};

/**
 * A clock for a backend that is started, and serves from `started` on: a start waits for what it removes until that is
 * gone, however busy the machine is, and leaves nothing of it to the background.
 */
export function patientAtStart(): { readonly clock: Clock; readonly started: () => void } {
  let isStarting = true;
  const lateMs = (ms: number): number => (isStarting && ms === 3_000 ? 180_000 : ms);
  return {
    clock: { ...systemClock, sleep: (ms, signal) => systemClock.sleep(lateMs(ms), signal) },
    started: () => (isStarting = false),
  };
}

const random: Random = { bytes: (length) => randomBytes(length) };
export const silentMeter: Meter = {
  count: () => undefined,
  observe: () => undefined,
  gauge: () => undefined,
};

const permissiveJudges: PushJudges = {
  preReceive: async () => undefined,
  update: async () => new Map(),
  talksAfterCommit: async () => false,
};

export const permissivePipeline: PushPipeline = {
  allowance: async () => undefined,
  judges: () => permissiveJudges,
  postReceive: async () => undefined,
  repositoryChanged: async () => undefined,
  repositoryGone: async () => undefined,
  repositoryRenaming: async () => undefined,
  repositoryRenamed: async () => undefined,
};

/** A pipeline that lets everything pass but for these stages. */
export function judging(judges: Partial<PushJudges>): PushPipeline {
  return { ...permissivePipeline, judges: () => ({ ...permissiveJudges, ...judges }) };
}

export interface LocalFixture {
  readonly directory: string;
  readonly backend: Backend;
  readonly coordinator: Coordinator;
  /** A work tree whose commits are pushed from. */
  readonly source: string;
  git(...args: string[]): Promise<string>;
  commit(content: string): Promise<string>;
  create(name: string): Promise<Repository>;
  /** Pushes with the objects that `have` lacks. */
  push(
    repository: Repository,
    commands: readonly RefCommand[],
    options?: { have?: readonly string[]; atomic?: boolean; pack?: Buffer },
  ): Promise<PushResult>;
  /** Closes everything without removing the data. */
  stop(): Promise<void>;
  remove(): Promise<void>;
}

export interface FixtureOptions {
  /** Data of an earlier fixture. */
  readonly directory?: string;
  /** Where to push from. Default: a new repository beside the data. */
  readonly source?: string;
  /** Of the source and of what is created. Default: sha1. */
  readonly objectFormat?: ObjectFormat;
  readonly pipeline?: PushPipeline;
  /** libgit2 workers; 0: git indexes every pack, as it does large ones. */
  readonly indexWorkers?: number;
  /** Of the backend alone. Default: the system's, and patience while it starts. */
  readonly clock?: Clock;
  /** Puts something between the backend and its coordinator. */
  readonly wrap?: (coordinator: Coordinator) => Coordinator;
  /** Time to live of the lease of the process. */
  readonly leaseMs?: number;
}

/** A started local backend over real git, libgit2 and LMDB, and a repository to push from. */
export async function startLocal(options: FixtureOptions = {}): Promise<LocalFixture> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'quorate-local-')));
  const source = options.source ?? join(directory, 'source');
  const git = async (...args: string[]): Promise<string> => (await runGit(source, args)).trim();
  if (options.directory === undefined) {
    await mkdir(source, { recursive: true });
    await git('init', '-q', '-b', 'main', `--object-format=${options.objectFormat ?? 'sha1'}`);
  }
  const runner = await createGitRunner({ logger: silentLogger, meter: silentMeter });
  const indexer = await createPackIndexer({
    git: runner,
    logger: silentLogger,
    meter: silentMeter,
    ...(options.indexWorkers === undefined ? {} : { workers: options.indexWorkers }),
  });
  const coordinator = await openEmbeddedCoordinator({
    directory: join(directory, 'coordinator'),
    clock: systemClock,
    logger: silentLogger,
  });
  const seen = options.wrap?.(coordinator) ?? coordinator;
  const lease = createProcessLease({
    coordinator: seen,
    clock: systemClock,
    logger: silentLogger,
    ...(options.leaseMs === undefined ? {} : { ttlMs: options.leaseMs }),
  });
  const patient = patientAtStart();
  const backend = await createLocalBackend({
    dataDirectory: directory,
    coordinator: seen,
    lease,
    git: runner,
    indexer,
    pipeline: options.pipeline ?? permissivePipeline,
    clock: options.clock ?? patient.clock,
    random,
    logger: silentLogger,
    meter: silentMeter,
    options: {
      nodeId: 'test',
      lockTimeoutMs: 10_000,
      maintenance: { enabled: false, pruneGraceMs: 3_600_000 },
      scrubIntervalMs: 0,
    },
  });
  await backend.start();
  patient.started();
  const stop = async (): Promise<void> => {
    await backend.close(5000);
    await lease.close();
    await coordinator.close();
    await indexer.close();
    await runner.close();
  };
  return {
    directory,
    backend,
    coordinator,
    source,
    git,
    stop,
    commit: async (content) => {
      const blob = (await runGit(source, ['hash-object', '-w', '--stdin'], content)).trim();
      const tree = (await runGit(source, ['mktree'], `100644 blob ${blob}\tfile\n`)).trim();
      const head = await git('rev-parse', '-q', '--verify', 'HEAD').catch(() => '');
      const parent = head === '' ? [] : ['-p', head];
      // As its input: arguments have a limit.
      const commit = (await runGit(source, ['commit-tree', tree, ...parent], content)).trim();
      await git('update-ref', 'HEAD', commit);
      return commit;
    },
    create: (name) =>
      backend.repositories.create({
        name,
        defaultBranch: 'main',
        objectFormat: options.objectFormat ?? 'sha1',
        settings: {},
        access: { public: false, grants: {} },
      }),
    push: async (repository, commands, { have = [], atomic = false, pack } = {}) => {
      const wants = commands.map(({ newOid }) => newOid).filter((oid) => !/^0+$/.test(oid));
      const bytes = pack ?? (wants.length === 0 ? undefined : await packOf(source, wants, have));
      return backend.push(repository, pushRequest(commands, { atomic, pack: bytes }));
    },
    remove: async () => {
      await stop();
      await rm(directory, { recursive: true });
    },
  };
}

const longerThanSmallPacksTakeMs = 50;

export function pushRequest(
  commands: readonly RefCommand[],
  options: {
    atomic?: boolean;
    pack?: Buffer | undefined;
    /** So that the pack is streamed to the stores before the push has its locks. */
    slowly?: boolean;
    signal?: AbortSignal;
  } = {},
): PushRequest {
  const { pack, slowly = false } = options;
  return {
    pushId: randomBytes(12).toString('hex'),
    actor: 'tester',
    commands,
    refused: new Map(),
    atomic: options.atomic ?? false,
    pushOptions: [],
    pack:
      pack === undefined
        ? undefined
        : (async function* bytes() {
            yield pack.subarray(0, 20);
            if (slowly) await delay(longerThanSmallPacksTakeMs);
            yield pack.subarray(20);
          })(),
    shallow: [],
    progress: () => undefined,
    quiet: true,
    signal: options.signal ?? new AbortController().signal,
  };
}

/** A pack of what `wants` reach and `have` do not. */
export async function packOf(
  source: string,
  wants: readonly string[],
  have: readonly string[],
): Promise<Buffer> {
  const revisions = [...wants, ...have.map((oid) => `^${oid}`)].join('\n');
  const packed = runGitBuffer(source, ['pack-objects', '--revs', '--stdout', '-q', '--thin']);
  packed.child.stdin?.end(`${revisions}\n`);
  return (await packed).stdout;
}

const environment = {
  PATH: process.env['PATH'],
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'A',
  GIT_AUTHOR_EMAIL: 'a@example.org',
  GIT_COMMITTER_NAME: 'A',
  GIT_COMMITTER_EMAIL: 'a@example.org',
};

function runGitBuffer(cwd: string, args: readonly string[]) {
  return promisify(execFile)('git', args, {
    cwd,
    env: environment,
    encoding: 'buffer',
    maxBuffer: 1 << 28,
  });
}

/** Runs git in a directory; rejects when it fails. */
export async function runGit(cwd: string, args: readonly string[], input = ''): Promise<string> {
  const running = runGitBuffer(cwd, args);
  // git may exit without reading what it was given.
  running.child.stdin?.on('error', () => undefined);
  running.child.stdin?.end(input);
  return (await running).stdout.toString('utf8');
}
