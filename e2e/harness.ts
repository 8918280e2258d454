import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { pickPort } from '../backends/contract/testing/ports.js';
import { processesUsing } from './processes.js';
import { runProcess } from './run-process.js';
import type { Finished } from './run-process.js';
import { ServerProcess, mainScript } from './server-process.js';
import type { ServerOptions } from './server-process.js';
import { waitFor } from './wait.js';

export type { Finished } from './run-process.js';
export { ServerProcess } from './server-process.js';
export { waitFor } from './wait.js';

export interface GitOptions {
  /** Default: the scene's directory, which is no repository. */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** `protocol.version`; default what git does by itself (2). */
  readonly protocol?: 0 | 1 | 2;
  readonly stdin?: string | Uint8Array;
  readonly timeoutMs?: number;
}

/** Where SSH is. */
export type SshServer = Pick<ServerProcess, 'sshHost' | 'sshPort'>;

export interface SshKey {
  readonly privateKeyFile: string;
  readonly publicKeyFile: string;
  /** Environment for git that signs in with this key and trusts the host keys of that server only. */
  environment(server: SshServer): Promise<Readonly<Record<string, string>>>;
  /** Arguments for `ssh` itself that do the same, up to and including the host. */
  sshArguments(server: SshServer): Promise<readonly string[]>;
}

export interface RepositoryShape {
  /** Commits on `main`, each adding one small file. Default 1. */
  readonly commits?: number;
  /** Further files of the last commit. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
}

/**
 * Makes the place in which one test works; all of it is gone after the test, and checked to be. For a whole suite call
 * it without `t` in `before`, and `scene.close()` in `after`: hooks that are registered inside `before` run right
 * after `before`.
 */
export async function createScene(t?: Pick<TestContext, 'after'>): Promise<Scene> {
  const directory = await realpath(await mkdtemp(path.join(tmpdir(), 'e2e-')));
  const scene = new Scene(directory);
  t?.after(() => scene.close());
  await Promise.all(
    ['home', 'tmp', 'keys', 'work'].map((name) => mkdir(path.join(directory, name))),
  );
  await writeFile(
    path.join(directory, 'gitconfig'),
    '[user]\n\tname = Test\n\temail = test@example.org\n' +
      '[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n' +
      '[advice]\n\tdetachedHead = false\n[safe]\n\tdirectory = *\n',
  );
  return scene;
}

/** A temporary directory, the servers started in it, and clients that see no configuration but its own. */
export class Scene {
  readonly directory: string;
  readonly #servers: ServerProcess[] = [];
  #count = 0;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** A path below the scene's directory; nothing is made. */
  path(...parts: readonly string[]): string {
    return path.join(this.directory, ...parts);
  }

  /** Environment without anything of the user's: no git configuration, no prompts, no agent. */
  get env(): Readonly<Record<string, string>> {
    return {
      PATH: process.env['PATH'] ?? '/usr/bin:/bin',
      HOME: this.path('home'),
      TMPDIR: this.path('tmp'),
      LC_ALL: 'C',
      GIT_CONFIG_GLOBAL: this.path('gitconfig'),
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_TERMINAL_PROMPT: '0',
    };
  }

  /** Starts a server and waits until it serves. It is stopped with the scene. */
  async startServer(options: ServerOptions = {}): Promise<ServerProcess> {
    const server = await this.launchServer(options);
    return server.ready();
  }

  /** Starts a server without waiting: for starts that are to fail. */
  async launchServer(options: ServerOptions = {}): Promise<ServerProcess> {
    this.#count += 1;
    const dataDirectory = options.dataDirectory ?? this.path(`data-${this.#count}`);
    const root = options.backend === 'directory' ? this.path(`root-${this.#count}`) : undefined;
    if (root !== undefined) mkdirSync(root);
    const serveArguments = [
      'serve',
      '--data',
      dataDirectory,
      ...(await this.#addresses()),
      ...(root === undefined ? [] : ['--backend', 'directory', '--root', root]),
      ...(options.flags ?? []),
    ];
    const env = { ...this.env, ...options.env };
    const server = new ServerProcess(serveArguments, { dataDirectory, root, env });
    this.#servers.push(server);
    return server;
  }

  /** Flags with ports that a restart finds free. */
  async #addresses(): Promise<readonly string[]> {
    const flags: string[] = [];
    for (const flag of ['--http', '--ssh', '--ops']) {
      flags.push(flag, `127.0.0.1:${await pickPort()}`);
    }
    return flags;
  }

  /** Runs git and asserts that it succeeds. Returns its stdout. */
  async git(args: readonly string[], options: GitOptions = {}): Promise<string> {
    const result = await this.tryGit(args, options);
    assert.equal(result.exitCode, 0, `git ${args.join(' ')}:\n${result.stderr}`);
    return result.stdout;
  }

  /** Runs git; failing is an answer. */
  tryGit(args: readonly string[], options: GitOptions = {}): Promise<Finished> {
    const version =
      options.protocol === undefined ? [] : ['-c', `protocol.version=${options.protocol}`];
    return runProcess('git', [...version, ...args], {
      cwd: options.cwd ?? this.directory,
      env: { ...this.env, ...options.env },
      ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
      ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    });
  }

  /** Runs any other program in the scene's environment; failing is an answer. */
  run(program: string, args: readonly string[], options: GitOptions = {}): Promise<Finished> {
    return runProcess(program, args, {
      cwd: options.cwd ?? this.directory,
      env: { ...this.env, ...options.env },
      ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
      ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    });
  }

  /** Runs a `quorate` command against a server, signed in as `admin` unless a token is given. */
  quorate(
    server: ServerProcess,
    args: readonly string[],
    options: { token?: string; stdin?: string } = {},
  ): Promise<Finished> {
    const token = options.token ?? server.adminToken;
    return this.run(process.execPath, [mainScript, ...args], {
      env: { QUORATE_URL: server.url, QUORATE_TOKEN: token },
      ...(options.stdin === undefined ? {} : { stdin: options.stdin }),
    });
  }

  /** Runs a `quorate` command and asserts that it succeeds. Returns its stdout. */
  async admin(server: ServerProcess, ...args: readonly string[]): Promise<string> {
    const result = await this.quorate(server, args);
    assert.equal(result.exitCode, 0, `quorate ${args.join(' ')}:\n${result.stderr}`);
    return result.stdout;
  }

  /** A new SSH key pair without passphrase. */
  async sshKey(type: 'ed25519' | 'ecdsa' | 'rsa' = 'ed25519'): Promise<SshKey> {
    this.#count += 1;
    const file = this.path('keys', `${type}-${this.#count}`);
    const made = await this.run('ssh-keygen', ['-q', '-t', type, '-N', '', '-f', file]);
    assert.equal(made.exitCode, 0, made.stderr);
    const options = async (server: SshServer): Promise<readonly string[]> => [
      '-F',
      'none',
      '-i',
      file,
      '-o',
      'IdentitiesOnly=yes',
      '-o',
      'BatchMode=yes',
      '-o',
      `UserKnownHostsFile=${await this.#knownHosts(server)}`,
      '-o',
      'StrictHostKeyChecking=yes',
    ];
    return {
      privateKeyFile: file,
      publicKeyFile: `${file}.pub`,
      environment: async (server) => ({
        GIT_SSH_COMMAND: ['ssh', ...(await options(server))].join(' '),
        GIT_SSH_VARIANT: 'ssh',
      }),
      sshArguments: async (server) => [
        ...(await options(server)),
        '-p',
        String(server.sshPort),
        `git@${server.sshHost}`,
      ],
    };
  }

  /** What `ssh-keyscan` finds: lines as they stand in a file of known hosts. */
  async hostKeys({ sshHost, sshPort }: SshServer): Promise<string> {
    // Left to itself it gives up after five seconds.
    const scanned = await this.run('ssh-keyscan', ['-T', '60', '-p', String(sshPort), sshHost]);
    assert.notEqual(scanned.stdout, '', `ssh-keyscan found no host key: ${scanned.stderr}`);
    return scanned.stdout;
  }

  async #knownHosts(server: SshServer): Promise<string> {
    const file = this.path('keys', `known-hosts-${server.sshPort}`);
    if ((await readFile(file).catch(() => undefined)) === undefined) {
      await writeFile(file, await this.hostKeys(server));
    }
    return file;
  }

  /** A working repository with `main` checked out. Returns its path. */
  async makeRepository(shape: RepositoryShape = {}): Promise<string> {
    this.#count += 1;
    const repository = this.path('work', `repository-${this.#count}`);
    await this.git(['init', '-q', '-b', 'main', repository]);
    await this.git(['fast-import', '--quiet'], { cwd: repository, stdin: importStream(shape) });
    await this.git(['reset', '-q', '--hard', 'main'], { cwd: repository });
    return repository;
  }

  /** Commits one changed file on the branch that is checked out. Returns the commit's id. */
  async commit(repository: string, file: string, content: string): Promise<string> {
    await writeFile(path.join(repository, file), content);
    await this.git(['add', '--', file], { cwd: repository });
    await this.git(['commit', '-q', '-m', `Change ${file}`], { cwd: repository });
    return (await this.git(['rev-parse', 'HEAD'], { cwd: repository })).trim();
  }

  /** Stops the servers; asserts that no process and no temporary file is left; removes everything. */
  async close(): Promise<void> {
    try {
      await Promise.all(this.#servers.map((server) => server.stop()));
      await this.#assertNoProcesses();
      if (!this.#servers.some((server) => server.treeKilled)) {
        assert.deepEqual(await readdir(this.path('tmp')), [], 'temporary files were left');
      }
    } finally {
      for (const server of this.#servers) {
        if (server.running) await server.kill('SIGKILL');
      }
      await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
    }
  }

  async #assertNoProcesses(): Promise<void> {
    let left = await processesUsing(this.directory);
    await waitFor(
      'processes to end',
      async () => {
        left = await processesUsing(this.directory);
        return left.length === 0;
      },
      60_000,
    ).catch(() => undefined);
    const told = left.map(({ pid, commandLine }) => `${pid} ${commandLine}`);
    assert.deepEqual(told, [], 'processes were left');
  }
}

/** A stream for `git fast-import`; the same shape gives the same commits. */
function importStream(shape: RepositoryShape): Buffer {
  const commits = shape.commits ?? 1;
  const parts: Uint8Array[] = [];
  const add = (text: string): number => parts.push(Buffer.from(text));
  const addFile = (name: string, content: Uint8Array): void => {
    add(`M 100644 inline ${JSON.stringify(name)}\ndata ${content.length}\n`);
    parts.push(content);
    add('\n');
  };
  for (let n = 1; n <= commits; n += 1) {
    const message = `Commit ${n}\n`;
    add('commit refs/heads/main\n');
    add(`committer Test <test@example.org> ${1_700_000_000 + n} +0000\n`);
    add(`data ${message.length}\n${message}`);
    addFile(`file-${n}.txt`, Buffer.from(`content ${n}\n`));
    if (n < commits) continue;
    for (const [name, content] of Object.entries(shape.files ?? {})) {
      addFile(name, Buffer.from(content));
    }
  }
  return Buffer.concat(parts);
}
