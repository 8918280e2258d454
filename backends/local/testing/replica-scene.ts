import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '../../coordination/test-environment.js';
import type { Head, RefCommand } from '../../contract/objects.js';
import type { LogReader, QuarantineKey } from '../../contract/replica.js';
import type { HeadRecord, LogEntry } from '../../contract/repository.js';
import type { GitResult, GitRunner } from '../../git/git-runner.js';
import { digestAfter, emptyDigest } from '../../git/digest.js';
import { takeFileSteps } from '../../git/file-steps.js';
import { createPackIndexer } from '../../git/indexer.js';
import { createObjectReader, type ObjectReader } from '../../git/object-reader.js';
import { createRefTransactions, type RefTransactions } from '../../git/ref-transaction.js';
import { createGitRunner } from '../../git/runner.js';
import { LocalReplica } from '../local-replica.js';
import type { LocalReplicaDependencies } from '../replica-dependencies.js';
import { packOf, runGit, silentMeter, systemClock, zeroOid } from './local-fixture.js';

/** A push log in memory, whose head can be turned back. */
export class MemoryLog implements LogReader {
  committed: HeadRecord = { generation: 0, digest: emptyDigest({ symref: 'refs/heads/main' }) };
  readonly kept: LogEntry[] = [];
  /** Stores that are said to have prepared what is committed. */
  prepared: readonly string[] = [];

  async head(): Promise<HeadRecord> {
    return this.committed;
  }

  /** What it says when a store asks whether it is to have a copy. */
  wanted: Awaited<ReturnType<LogReader['wantsCopy']>> = 'new';

  async wantsCopy(): ReturnType<LogReader['wantsCopy']> {
    return this.wanted;
  }

  async entries(_id: string, after: number, upTo: number): Promise<readonly LogEntry[]> {
    return this.kept.filter(({ generation }) => generation > after && generation <= upTo);
  }

  commit(
    pushId: string,
    updates: readonly RefCommand[],
    more: {
      readonly head?: { readonly old: Head; readonly new: Head };
      readonly updatesDigest?: string;
    } = {},
  ): number {
    const generation = this.committed.generation + 1;
    const digest = digestAfter(this.committed.digest, updates, more.head);
    const inline = more.updatesDigest === undefined ? updates : [];
    this.kept.push({
      generation,
      pushId,
      updates: inline,
      prepared: this.prepared,
      digest,
      actor: 'a',
      atMs: 0,
      ...more,
    });
    this.committed = { generation, digest };
    return generation;
  }
}

export interface ReplicaScene {
  readonly id: string;
  readonly root: string;
  /** Where commits are made. */
  readonly source: string;
  readonly gitDir: string;
  readonly log: MemoryLog;
  readonly refs: RefTransactions;
  readonly objects: ObjectReader;
  /** Calls of these that fail, for lack of room: name -> how many of the next ones. */
  readonly failures: Map<'commitEither' | 'peel', number>;
  /** Commands of git whose next run ends so, before it has said anything. */
  readonly gitEnds: Map<string, () => Promise<GitResult>>;
  /** Repositories whose copy was said to be damaged, maybe. */
  readonly suspected: readonly string[];
  readonly replica: LocalReplica;
  /** Another replica over the same files, as after a restart. */
  reopen(): Promise<LocalReplica>;
  /** Another store, empty at first, with the same log, whose peer is `replica`. */
  second(): Promise<LocalReplica>;
  readonly secondRoot: string;
  readonly secondGitDir: string;
  commit(content: string, ...parents: string[]): Promise<string>;
  /** Uploads, prepares (with all refs free) and returns the key. */
  prepare(commands: readonly RefCommand[], have?: readonly string[]): Promise<QuarantineKey>;
  request(
    key: QuarantineKey,
    commands: readonly RefCommand[],
    basis?: number,
  ): Parameters<LocalReplica['prepare']>[0];
  git(...args: string[]): Promise<string>;
  /** Lets time pass, for both clocks. */
  advance(ms: number): void;
  /** Puts the wall clock forth, or back. */
  step(ms: number): void;
  close(): Promise<void>;
}

export const create = (ref: string, newOid: string): RefCommand => ({
  ref,
  oldOid: zeroOid,
  newOid,
});

/** One repository of a store on disk, over real git, with a log in memory in place of a coordinator. */
export async function openReplica(): Promise<ReplicaScene> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-replica-'));
  const root = join(directory, 'store');
  const source = join(directory, 'source');
  await runGit(directory, ['init', '-q', 'source']);
  const runner = await createGitRunner({ logger: silentLogger, meter: silentMeter });
  const indexer = await createPackIndexer({
    git: runner,
    logger: silentLogger,
    meter: silentMeter,
  });
  const log = new MemoryLog();
  const failures: ReplicaScene['failures'] = new Map();
  const failing = <A extends unknown[], R>(
    name: 'commitEither' | 'peel',
    call: (...args: A) => Promise<R>,
    before: (...args: A) => Promise<void> = async () => undefined,
  ) => {
    return async (...args: A): Promise<R> => {
      const left = failures.get(name) ?? 0;
      if (left === 0) return call(...args);
      failures.set(name, left - 1);
      await before(...args);
      throw Object.assign(new Error(`ENOSPC: ${name} fails`), { code: 'ENOSPC' });
    };
  };
  const gitEnds: ReplicaScene['gitEnds'] = new Map();
  const git: GitRunner = {
    version: runner.version,
    conversations: runner.conversations,
    running: 0,
    run: async (command) => {
      const [name = ''] = command.args;
      const ends = gitEnds.get(name);
      gitEnds.delete(name);
      if (ends === undefined) return runner.run(command);
      const end = await ends();
      command.onStderr?.(Buffer.from(end.stderr));
      return end;
    },
    stream: (command) => runner.stream(command),
    converse: (command) => runner.converse(command),
    program: (command) => runner.program(command),
    close: () => runner.close(),
  };
  const suspected: string[] = [];
  let aheadMs = 0;
  let steppedMs = 0;
  const clock = {
    ...systemClock,
    nowMs: () => systemClock.nowMs() + aheadMs + steppedMs,
    monotonicMs: () => systemClock.monotonicMs() + aheadMs,
  };
  const refs = createRefTransactions({ git: runner, clock: systemClock });
  const objects = createObjectReader({ git: runner, clock: systemClock });
  const open = (
    storeRoot = root,
    more: Pick<LocalReplicaDependencies, 'peers'> = {},
  ): Promise<LocalReplica> =>
    LocalReplica.open({
      ...more,
      root: storeRoot,
      git,
      refs: {
        ...refs,
        commitEither: failing(
          'commitEither',
          (...args: Parameters<RefTransactions['commitEither']>) => refs.commitEither(...args),
          (_gitDir, _updates, { before = [] } = {}) => takeFileSteps(before),
        ),
      },
      objects: {
        ...objects,
        peel: failing('peel', (...args: Parameters<ObjectReader['peel']>) => objects.peel(...args)),
      },
      indexer,
      log,
      clock,
      random: { bytes: (length) => randomBytes(length) },
      logger: silentLogger,
      meter: silentMeter,
      // Longer than any maintenance takes: what one sets aside only a later one removes.
      pruneGraceMs: 3_600_000,
      applied: () => undefined,
      suspect: (repositoryId) => void suspected.push(repositoryId),
    });
  const replica = await open();
  log.prepared = [replica.storeId];
  const id = randomBytes(16).toString('hex');
  await replica.create(id, { objectFormat: 'sha1', head: 'refs/heads/main' });
  const gitDir = join(root, 'repos', id.slice(0, 2), id, 'git');
  const request: ReplicaScene['request'] = (key, commands, basis = log.committed.generation) => ({
    key,
    basis,
    commands,
    settings: {},
    shallow: [],
    lockRevisions: [{ key: 'lock', createRevision: 7 }],
    signal: new AbortController().signal,
  });
  return {
    id,
    root,
    source,
    gitDir,
    log,
    refs,
    objects,
    failures,
    gitEnds,
    suspected,
    replica,
    reopen: () => open(),
    second: () =>
      open(join(directory, 'second'), {
        peers: () => (have, atLeast, signal) => replica.export(id, { have, atLeast, signal }),
      }),
    secondRoot: join(directory, 'second'),
    secondGitDir: join(directory, 'second', 'repos', id.slice(0, 2), id, 'git'),
    request,
    commit: async (content, ...parents) => {
      const blob = (await runGit(source, ['hash-object', '-w', '--stdin'], content)).trim();
      const tree = (await runGit(source, ['mktree'], `100644 blob ${blob}\tfile\n`)).trim();
      const args = ['commit-tree', tree, ...parents.flatMap((oid) => ['-p', oid])];
      // As its input: arguments have a limit.
      return (await runGit(source, args, content.slice(0, 100))).trim();
    },
    prepare: async (commands, have = []) => {
      const key = { repositoryId: id, pushId: randomBytes(12).toString('hex'), attempt: 1 };
      const wants = commands.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
      if (wants.length > 0) {
        const bytes = await packOf(source, wants, have);
        const pack = (async function* whole() {
          yield bytes;
        })();
        const { signal } = new AbortController();
        await replica.upload(key, pack, { settings: {}, signal, progress: () => undefined });
      }
      await replica.prepare(request(key, commands));
      return key;
    },
    git: async (...args) => (await runGit(gitDir, args)).trim(),
    advance: (ms) => {
      aheadMs += ms;
    },
    step: (ms) => {
      steppedMs += ms;
    },
    close: async () => {
      await refs.close();
      await objects.close();
      await indexer.close();
      await runner.close();
      await rm(directory, { recursive: true });
    },
  };
}
