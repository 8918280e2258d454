import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { sendSignal, stopTree } from './processes.js';
import { waitFor } from './wait.js';

/** The built server, beside this file in `dist/`. */
export const mainScript = fileURLToPath(new URL('../server/main.js', import.meta.url));

export interface ServerOptions {
  /** Further flags of `quorate serve`. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** `directory` gets a fresh root of its own. Default `local`. */
  readonly backend?: 'local' | 'directory';
  /** A data directory to start on; default a fresh one. */
  readonly dataDirectory?: string;
}

interface Endpoints {
  readonly httpUrl: string;
  readonly sshHost: string;
  readonly sshPort: number;
  readonly opsUrl: string;
  readonly pid: number;
}

/** A `quorate serve` that runs as a child process, on loopback ports that stay its own over restarts. */
export class ServerProcess {
  readonly dataDirectory: string;
  /** Root of the repositories with the directory backend. */
  readonly root: string | undefined;
  readonly #arguments: readonly string[];
  readonly #env: Readonly<Record<string, string>>;
  #child: ChildProcess;
  #endpoints: Endpoints | undefined;
  #adminToken = '';
  #stdout = '';
  #logs = '';
  #treeKilled = false;

  constructor(
    serveArguments: readonly string[],
    places: {
      dataDirectory: string;
      root: string | undefined;
      env: Readonly<Record<string, string>>;
    },
  ) {
    this.#arguments = serveArguments;
    this.#env = places.env;
    this.dataDirectory = places.dataDirectory;
    this.root = places.root;
    this.#child = this.#spawn();
  }

  /** `http://127.0.0.1:PORT` */
  get url(): string {
    return this.#known.httpUrl;
  }
  get sshHost(): string {
    return this.#known.sshHost;
  }
  get sshPort(): number {
    return this.#known.sshPort;
  }
  get opsUrl(): string {
    return this.#known.opsUrl;
  }
  get adminToken(): string {
    return this.#adminToken;
  }
  get pid(): number {
    assert.ok(this.#child.pid !== undefined, 'the server was spawned');
    return this.#child.pid;
  }
  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }
  /** True when its helpers were killed with it: nobody was left to remove temporary files then. */
  get treeKilled(): boolean {
    return this.#treeKilled;
  }
  /** What the server printed for people, over all restarts. */
  get stdout(): string {
    return this.#stdout;
  }

  /** The JSON log lines so far, over all restarts. */
  logs(): string {
    return this.#logs;
  }

  /** URL of a repository over HTTP, with credentials of `admin` unless others (or none: `null`) are given. */
  httpUrl(repository: string, credentials?: { user: string; token: string } | null): string {
    const url = new URL(`${this.url}/${repository}`);
    const { user, token } =
      credentials === undefined
        ? { user: 'admin', token: this.#adminToken }
        : (credentials ?? { user: '', token: '' });
    url.username = user;
    url.password = token;
    return url.href;
  }

  /** URL of a repository over SSH; for the environment of `SshKey.environment(server)`. */
  sshUrl(repository: string): string {
    return `ssh://git@${this.sshHost}:${this.sshPort}/${repository}`;
  }

  /** Resolves when the server serves; rejects with its output when it ends instead. */
  async ready(): Promise<this> {
    const child = this.#child;
    this.#endpoints = await waitFor('the server to serve', async () => {
      if (!this.running) {
        await this.exited();
        throw new Error(
          `the server ended with ${child.exitCode ?? child.signalCode}:\n${this.#stdout}${this.#logs}`,
        );
      }
      const file = path.join(this.dataDirectory, 'server.json');
      const text = await readFile(file, 'utf8').catch(() => undefined);
      const endpoints: Endpoints | undefined = text === undefined ? undefined : JSON.parse(text);
      return endpoints?.pid === child.pid ? endpoints : undefined;
    });
    const token = path.join(this.dataDirectory, 'admin-token');
    this.#adminToken = (await readFile(token, 'utf8').catch(() => '')).trim();
    return this;
  }

  /** SIGTERM, and asserts that the server drains and exits with status 0. Nothing when it has ended already. */
  async stop(): Promise<void> {
    if (!this.running) return;
    this.#child.kill('SIGTERM');
    const { exitCode, signal } = await this.exited();
    assert.deepEqual({ exitCode, signal }, { exitCode: 0, signal: null }, this.#logs);
  }

  /** Sends a signal and waits until the process has gone. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child.kill(signal);
    await this.exited();
  }

  /** Resolves when the process has ended and its output was read; bounded. */
  async exited(): Promise<{ exitCode: number | null; signal: NodeJS.Signals | null }> {
    const child = this.#child;
    await waitFor('the server to end', () => this.#closed.has(child));
    return { exitCode: child.exitCode, signal: child.signalCode };
  }

  /** Starts again on the same data and the same ports, after `stop` if it still runs. */
  async restart(): Promise<this> {
    await this.stop();
    return this.relaunch().ready();
  }

  /**
   * Starts again on the same data and the same ports after it has ended; `ready` waits until it serves. `under` is a
   * command that becomes the server, such as `strace -D`.
   */
  relaunch(under: readonly string[] = []): this {
    assert.ok(!this.running, 'it has ended');
    this.#child = this.#spawn(under);
    return this;
  }

  /** SIGKILL to the server and everything it started, all of it stopped first so that none sees another die. */
  async killTree(): Promise<void> {
    this.#treeKilled = true;
    const pids = await stopTree(this.pid);
    for (const pid of pids) sendSignal(pid, 'SIGKILL');
    await this.exited();
  }

  readonly #closed = new WeakSet<ChildProcess>();

  get #known(): Endpoints {
    assert.ok(this.#endpoints !== undefined, 'await ready() first');
    return this.#endpoints;
  }

  #spawn(under: readonly string[] = []): ChildProcess {
    const command = [...under, process.execPath, mainScript, ...this.#arguments];
    const [program = process.execPath, ...args] = command;
    const child = spawn(program, args, {
      env: { ...this.#env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#logs += text;
    });
    child.on('close', () => this.#closed.add(child));
    return child;
  }
}
