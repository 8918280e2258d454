import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import type { Logger, Meter } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import type { HookEnd } from '../contract/hook.js';
import { feed, watchChild, type GitChild } from './child.js';
import {
  assertNoNul,
  commandLabel,
  configVariables,
  createBaseEnvironment,
  findProgram,
  makeOwnHead,
  type BaseEnvironment,
} from './environment.js';
import type {
  ConversationCommand,
  GitCommand,
  GitConversation,
  GitResult,
  GitRunner,
} from './git-runner.js';
import { hardTaskLimit, tasksOfUser } from './process-group.js';
import { type ProgramCommand, watchProgram } from './program.js';
import { takeRunLock } from './spawner/run-lock.js';
import { cancelled, Slots } from './spawner/slots.js';
import { Spawner, type Spawned } from './spawner/spawner.js';
import { tooMuchOutput } from './too-much-output.js';

export interface GitRunnerOptions {
  readonly logger: Logger;
  readonly meter: Meter;
  /** Helper processes (default 2: one may be restarting, and one alone does some 400 spawns a second). */
  readonly helpers?: number;
  /**
   * A directory of this server's data. At most one runner at a time works on it: creation waits until every git of a
   * previous run is gone, and fails with `unavailable` after 10 seconds.
   */
  readonly runDirectory?: string;
  readonly limits?: Partial<GitRunnerLimits>;
}

/**
 * Three bounds, one per kind, since the kinds wait for each other: a stream is paced by a client and may hold its
 * place for hours, while the push that it belongs to needs short runs; a conversation is held by a pool.
 */
export interface GitRunnerLimits {
  /** `run` at once (64): more than any machine has cores for. */
  readonly runs: number;
  /** `stream` at once (64): slow clients each hold one. */
  readonly streams: number;
  /** `converse` at once (256): each of the three pools holds a quarter of them. Never queued: beyond it, refused. */
  readonly conversations: number;
  /** `program` at once (16): hooks of pushes, which hold the locks of their refs meanwhile. */
  readonly programs: number;
  /** Waiting for each of the first two (1,024): at 64 at a time, already some seconds. */
  readonly queued: number;
}

const defaultLimits: GitRunnerLimits = {
  runs: 64,
  streams: 64,
  conversations: 256,
  programs: 16,
  queued: 1024,
};
const defaultTimeoutMs = 3_600_000;
/** Conversations are ended by their pools; a limit on their whole life would end them in use. */
const conversationTimeoutMs = 24 * 3_600_000;
const defaultMaxStdoutBytes = 64 * 1024 * 1024;

/**
 * From here on git knows `core.fsync`. One before ignores it without a word: refs would be acknowledged that a power
 * cut takes.
 */
const leastVersion = [2, 36] as const;

/** See `startGitRunner`: waits for all of it. */
export async function createGitRunner(options: GitRunnerOptions): Promise<GitRunner> {
  const { ready } = await startGitRunner(options);
  return ready;
}

/**
 * Starts the spawn helpers; `ready` resolves once they are up and git's version is known, which takes some tenths of a
 * second. Either rejects with `unavailable`: another run holds `runDirectory`; git cannot be run, or is too old.
 */
export async function startGitRunner(
  options: GitRunnerOptions,
): Promise<{ readonly ready: Promise<GitRunner> }> {
  const runLock =
    options.runDirectory === undefined ? undefined : await takeRunLock(options.runDirectory);
  // Short and private: the path of a socket has 107 bytes at most, and only we may connect to it.
  const directory = await mkdtemp(join(tmpdir(), directoryPrefix));
  try {
    if (options.runDirectory !== undefined) await replaceScratch(options.runDirectory, directory);
    const environment = await createBaseEnvironment(
      // Not in the temporary directory, where it can be: systems remove there what is some days old.
      await emptied(join(options.runDirectory ?? directory, 'git')),
    );
    const spawner = await Spawner.start({
      directory,
      helpers: options.helpers ?? 2,
      runLock,
      path: environment.variables['PATH'] ?? '',
      logger: options.logger,
    });
    const ready = finishStart(options, spawner, environment);
    // Whoever waits for it is told; by then it may have failed long ago.
    ready.catch(() => undefined);
    return { ready };
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

async function finishStart(
  options: GitRunnerOptions,
  spawner: Spawner,
  environment: BaseEnvironment,
): Promise<GitRunner> {
  try {
    const tools = await findTools(environment.variables['PATH'] ?? '', options.logger);
    const runner = new HelperGitRunner({ ...options, spawner, environment, tools });
    await runner.findVersion();
    return runner;
  } catch (error) {
    await spawner.close();
    throw error;
  }
}

const directoryPrefix = 'quorate-git-';

/** In a temporary directory: whose it is. */
const ownerFile = 'owner';

/**
 * Removes the temporary directory of a run that was killed together with its helpers, and notes this run's. A copy of a
 * data directory has the note as well, of a server that may run: so it has to be of this very run directory.
 */
async function replaceScratch(runDirectory: string, directory: string): Promise<void> {
  const noteFile = join(runDirectory, 'spawn.directory');
  const { dev, ino } = await stat(runDirectory, { bigint: true });
  const owner = `${dev}:${ino}`;
  const previous = await readFile(noteFile, 'utf8').catch(() => '');
  if (dirname(previous) === tmpdir() && basename(previous).startsWith(directoryPrefix)) {
    const previousOwner = await readFile(join(previous, ownerFile), 'utf8').catch(() => '');
    if (previousOwner === owner) await rm(previous, { recursive: true, force: true });
  }
  await writeFile(join(directory, ownerFile), owner, { mode: 0o600 });
  await writeFile(noteFile, directory, { mode: 0o600 });
}

/** `directory`, new: what an earlier run left there is gone. */
async function emptied(directory: string): Promise<string> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { mode: 0o700 });
  return directory;
}

/** What the server itself may start while a hook runs. */
const spareTasks = 1_024;
/**
 * Objects are what their ids say. Else `refs/replace/`, which is a pusher's to write, would have an incomplete history
 * pass for a whole one, and tags point elsewhere than clients see.
 */
const asTheyAre: Readonly<Record<string, string>> = { GIT_NO_REPLACE_OBJECTS: '1' };

/** Niceness of background git: well below the foreground, above idle. */
const backgroundNice = '10';

/** Full paths; undefined for what this machine does not have. */
interface Tools {
  readonly nice: string | undefined;
  readonly ionice: string | undefined;
  readonly prlimit: string | undefined;
}

async function findTools(path: string, logger: Logger): Promise<Tools> {
  const [nice, ionice, prlimit] = await Promise.all(
    (['nice', 'ionice', 'prlimit'] as const).map((name) => findProgram(name, path)),
  );
  if (nice === undefined || ionice === undefined) {
    logger.warn({ component: 'git' }, 'no nice or no ionice: maintenance runs at normal priority');
  }
  if (prlimit === undefined) {
    logger.warn({ component: 'git' }, 'no prlimit: the memory of git processes is not limited');
  }
  return { nice, ionice, prlimit };
}

class HelperGitRunner implements GitRunner {
  readonly #spawner: Spawner;
  readonly #environment: BaseEnvironment;
  readonly #tools: Tools;
  readonly #meter: Meter;
  readonly conversations: number;
  readonly #runs: Slots;
  readonly #streams: Slots;
  readonly #conversations: Slots;
  readonly #programs: Slots;
  readonly #children = new Set<GitChild>();
  #version = '';
  #closing: Promise<void> | undefined;

  constructor(
    options: GitRunnerOptions & {
      readonly spawner: Spawner;
      readonly environment: BaseEnvironment;
      readonly tools: Tools;
    },
  ) {
    const limits = { ...defaultLimits, ...options.limits };
    this.#spawner = options.spawner;
    this.#environment = options.environment;
    this.#tools = options.tools;
    this.#meter = options.meter;
    this.#runs = new Slots(limits.runs, limits.queued);
    this.#streams = new Slots(limits.streams, limits.queued);
    this.conversations = limits.conversations;
    this.#conversations = new Slots(limits.conversations, 0);
    this.#programs = new Slots(limits.programs, limits.queued);
    this.#meter.gauge(
      'queue_depth',
      { queue: 'spawn' },
      () => this.#runs.queued + this.#streams.queued + this.#programs.queued,
    );
  }

  get version(): string {
    return this.#version;
  }

  get running(): number {
    return this.#children.size;
  }

  async findVersion(): Promise<void> {
    const { exitCode, stdout } = await this.run({ args: ['version'] }).catch(whyNoGit);
    const [, version, major, minor] =
      /^git version ((\d+)\.(\d+)\S*)/.exec(stdout.toString()) ?? [];
    if (exitCode !== 0 || version === undefined) {
      throw new QuorateError('unavailable', 'git does not run on this machine');
    }
    const [leastMajor, leastMinor] = leastVersion;
    const enough = (Number(major) - leastMajor || Number(minor) - leastMinor) >= 0;
    if (!enough) {
      throw new QuorateError(
        'unavailable',
        `git ${version} is too old: install ${leastVersion.join('.')} or newer, which can sync what a push changes to the disk`,
      );
    }
    this.#version = version;
  }

  async run(command: GitCommand & { readonly maxStdoutBytes?: number }): Promise<GitResult> {
    const child = await this.#start(command, this.#runs);
    const maxBytes = command.maxStdoutBytes ?? defaultMaxStdoutBytes;
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    child.stdout.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.length;
      if (sizeBytes > maxBytes) child.kill();
      else chunks.push(chunk);
    });
    const { exitCode, signal, stderr } = await child.exited;
    if (sizeBytes > maxBytes) {
      throw tooMuchOutput(maxBytes);
    }
    if (command.signal?.aborted === true && exitCode !== 0) throw cancelled();
    if ((await child.left).lost) {
      throw new QuorateError('unavailable', 'the process that runs git died');
    }
    return { exitCode, signal, stdout: Buffer.concat(chunks), stderr };
  }

  stream(command: GitCommand): Promise<GitChild> {
    return this.#start(command, this.#streams);
  }

  async converse({ ownHead, ...command }: ConversationCommand): Promise<GitConversation> {
    const gitDir = ownHead === true ? command.env?.['GIT_DIR'] : undefined;
    if (gitDir === undefined) return this.#converse(command);
    const directory = await makeOwnHead(this.#environment, gitDir);
    const remove = (): Promise<void> => rm(directory, { recursive: true, force: true });
    try {
      const child = await this.#converse({
        ...command,
        env: { ...command.env, GIT_DIR: directory },
      });
      // What stays goes with the server.
      void child.left.then(remove).catch(() => undefined);
      return child;
    } catch (error) {
      await remove();
      throw error;
    }
  }

  #converse(command: GitCommand): Promise<GitChild> {
    return this.#start(
      { timeoutMs: conversationTimeoutMs, ...command },
      this.#conversations,
      'open',
    );
  }

  async program(command: ProgramCommand): Promise<HookEnd> {
    const env = { ...this.#environment.variables, ...command.env };
    assertNoNul([...command.args, command.cwd, command.file, ...Object.entries(env).flat()]);
    await this.#programs.take(command.signal);
    try {
      if (this.#closing !== undefined) throw shuttingDown();
      const spawned = await this.#spawner.spawn({
        ...(await this.#limited(command)),
        cwd: command.cwd,
        env,
        stdin: true,
        leaveDescendants: false,
      });
      this.#meter.count('git_spawns', { command: 'other' });
      return await watchProgram(spawned, command);
    } finally {
      this.#programs.release();
    }
  }

  /** The kernel's bound on processes, behind our own: far above it, since it counts all processes of the user. */
  async #limited({
    file,
    args,
    limits,
  }: ProgramCommand): Promise<{ file: string; args: string[] }> {
    const { prlimit } = this.#tools;
    if (prlimit === undefined) return { file, args: [...args] };
    const userId = process.getuid?.() ?? 0;
    // The kernel sets root no such bound.
    if (userId === 0) return { file: prlimit, args: ['--core=0', '--', file, ...args] };
    const wanted = (await tasksOfUser(userId)) + limits.maxProcesses + spareTasks;
    const most = String(Math.min(wanted, (await hardTaskLimit()) ?? wanted));
    return { file: prlimit, args: ['--core=0', `--nproc=${most}:${most}`, '--', file, ...args] };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const refusal = shuttingDown();
    const kinds = [this.#runs, this.#streams, this.#conversations, this.#programs];
    for (const slots of kinds) slots.refuseAll(refusal);
    for (const child of this.#children) child.kill();
    await this.#spawner.close();
  }

  async #start(command: GitCommand, slots: Slots, stdin?: 'open'): Promise<GitChild> {
    const source = command.stdin;
    // A source that fails while git waits for its turn must not be an uncaught error; `feed` looks again.
    if (source instanceof Readable) source.on('error', () => {});
    const env = {
      ...this.#environment.variables,
      ...asTheyAre,
      ...command.env,
      ...configVariables(command.config ?? {}),
    };
    assertNoNul([...command.args, command.cwd ?? '', ...Object.entries(env).flat()]);
    await slots.take(command.signal);
    let spawned: Spawned;
    try {
      if (this.#closing !== undefined) throw shuttingDown();
      spawned = await this.#spawner.spawn({
        ...this.#program(command),
        cwd: command.cwd ?? this.#environment.emptyDirectory,
        env,
        stdin: stdin === 'open' || source !== undefined,
        leaveDescendants: command.leaveDescendants ?? false,
      });
    } catch (error) {
      slots.release();
      throw error;
    }
    const child = this.#watch(command, spawned, slots);
    if (source instanceof Readable) feed(source, spawned, () => child.kill());
    else if (source !== undefined) spawned.stdin?.end(source);
    return child;
  }

  #watch(command: GitCommand, spawned: Spawned, slots: Slots): GitChild {
    const label = { command: commandLabel(command.args) };
    const startedMs = performance.now();
    this.#meter.count('git_spawns', label);
    const child = watchChild(spawned, {
      signal: command.signal,
      timeoutMs: command.timeoutMs ?? defaultTimeoutMs,
      onStderr: command.onStderr,
      onLeft: () => {
        this.#children.delete(child);
        slots.release();
        this.#meter.observe('git_seconds', (performance.now() - startedMs) / 1000, label);
      },
    });
    this.#children.add(child);
    return child;
  }

  /** git, behind the programs that limit it; each replaces itself by the next, so the process stays the same. */
  #program(command: GitCommand): { file: string; args: string[] } {
    const argv = ['git', ...command.args];
    if (command.memoryLimitBytes !== undefined && this.#tools.prlimit !== undefined) {
      const limit = String(command.memoryLimitBytes);
      argv.unshift(this.#tools.prlimit, `--data=${limit}:${limit}`, '--');
    }
    if (command.background === true && this.#tools.ionice !== undefined) {
      // -t: a container may forbid it, and that is no reason not to run.
      argv.unshift(this.#tools.ionice, '-t', '-c', '3');
    }
    if (command.background === true && this.#tools.nice !== undefined) {
      argv.unshift(this.#tools.nice, '-n', backgroundNice);
    }
    const [file = 'git', ...args] = argv;
    return { file, args };
  }
}

function shuttingDown(): QuorateError {
  return new QuorateError('unavailable', 'the server is shutting down');
}

function whyNoGit(error: unknown): never {
  const isAbsent = error instanceof QuorateError && error.details['code'] === 'ENOENT';
  if (!isAbsent) throw error;
  throw new QuorateError('unavailable', 'there is no git in PATH: install it');
}
