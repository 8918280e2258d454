import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { request } from 'node:http';
import type { IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { PktReader, pktText, writePkt } from '../server/wire/pkt-line.js';
import { readStatusReport } from '../server/wire/report-status.js';
import type { StatusReport } from '../server/wire/report-status.js';
import { parseSideBand } from '../server/wire/side-band.js';
import { createScene, waitFor } from './harness.js';
import type { Scene, ServerProcess } from './harness.js';
import { processTree } from './process-tree.js';
import type { ServerOptions } from './server-process.js';

export const zeroOid = '0'.repeat(40);
/** Nobody waits longer for an answer to an attack: that would be a hang. */
const answerTimeoutMs = 300_000;

export type HostileService = 'git-upload-pack' | 'git-receive-pack';

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface HttpQuestion {
  readonly method?: string;
  /** Default `/victim.git`. */
  readonly repository?: string;
  /** Instead of the service's own path. */
  readonly path?: string;
  readonly protocol?: 0 | 1 | 2;
  /** Over and instead of those of a right request; undefined takes one away. */
  readonly headers?: Readonly<Record<string, string | undefined>>;
}

export interface SshAnswer {
  readonly exitCode: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** One line of a push: what it asks for. */
export interface Command {
  readonly ref: string;
  readonly oldOid?: string;
  readonly newOid: string;
}

/** A server with a repository `victim.git`, and ways to send it what no client would. */
export class HostileGround {
  readonly scene: Scene;
  readonly server: ServerProcess;
  /** A working repository with the content of `victim.git`: 5 commits on `main`. */
  readonly source: string;
  readonly tip: string;
  readonly #ssh: readonly string[];
  #files: readonly string[] = [];

  private constructor(
    scene: Scene,
    places: { server: ServerProcess; source: string; tip: string; ssh: readonly string[] },
  ) {
    this.scene = scene;
    this.server = places.server;
    this.source = places.source;
    this.tip = places.tip;
    this.#ssh = places.ssh;
  }

  static async create(options: ServerOptions = {}): Promise<HostileGround> {
    const scene = await createScene();
    try {
      const server = await scene.startServer(options);
      const key = await scene.sshKey();
      await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
      const source = await scene.makeRepository({ commits: 5 });
      const tip = (await scene.git(['rev-parse', 'main'], { cwd: source })).trim();
      await scene.git(['push', '-q', server.httpUrl('victim.git'), 'main'], { cwd: source });
      const ssh = await key.sshArguments(server);
      const ground = new HostileGround(scene, { server, source, tip, ssh });
      ground.#files = await ground.#storedFiles();
      return ground;
    } catch (error) {
      await scene.close();
      throw error;
    }
  }

  /** Checks that the server still serves as it should, and closes everything. */
  async close(): Promise<void> {
    try {
      await this.assertUnharmed();
      await this.assertServes();
      // Nothing that was sent is a bug to the server.
      const bugs = this.server
        .logs()
        .split('\n')
        .filter((line) => /"level":(?:50|60|"error"|"fatal")|"stack":/.test(line));
      assert.deepEqual(bugs, [], 'the server logged errors, or where in it something was refused');
    } finally {
      await this.scene.close();
    }
  }

  get authorization(): string {
    return `Basic ${Buffer.from(`admin:${this.server.adminToken}`).toString('base64')}`;
  }

  /** A POST to a service (or whatever the question says) with any body. */
  post(
    service: HostileService,
    body: Uint8Array | readonly Uint8Array[],
    question: HttpQuestion = {},
  ): Promise<HttpAnswer> {
    const headers: Record<string, string> = {};
    const wanted: Readonly<Record<string, string | undefined>> = {
      authorization: this.authorization,
      'content-type': `application/x-${service}-request`,
      ...(question.protocol === undefined || question.protocol === 0
        ? {}
        : { 'git-protocol': `version=${question.protocol}` }),
      ...question.headers,
    };
    for (const [name, value] of Object.entries(wanted)) {
      if (value !== undefined) headers[name] = value;
    }
    return ask(this.server.url, {
      method: question.method ?? 'POST',
      path: question.path ?? `${question.repository ?? '/victim.git'}/${service}`,
      headers,
      body: body instanceof Uint8Array ? [body] : body,
    });
  }

  get(path: string, headers: Readonly<Record<string, string>> = {}): Promise<HttpAnswer> {
    const all = { authorization: this.authorization, ...headers };
    return ask(this.server.url, { method: 'GET', path, headers: all, body: [] });
  }

  /** Bytes on a new connection to the HTTP port, and all that comes back until it is closed or `until` holds. */
  rawHttp(bytes: string | Uint8Array, until?: (received: string) => boolean): Promise<string> {
    const { hostname, port } = new URL(this.server.url);
    return new Promise((resolve, reject) => {
      const socket = connect(Number(port), hostname);
      let received = '';
      const finish = (): void => {
        clearTimeout(timer);
        socket.destroy();
        resolve(received);
      };
      const timer = setTimeout(() => {
        socket.destroy();
        reject(new Error(`no end of the answer: ${received}`));
      }, answerTimeoutMs);
      socket.on('data', (chunk: Buffer) => {
        received += chunk.toString('latin1');
        if (until?.(received) === true) finish();
      });
      socket.on('close', finish);
      socket.on('error', () => undefined);
      socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
    });
  }

  /** Runs a command line over real ssh; its stdin is kept open until the server has ended unless `endInput`. */
  ssh(
    commandLine: string,
    input: Uint8Array = Buffer.alloc(0),
    options: { readonly protocol?: 0 | 1 | 2; readonly keepOpen?: boolean } = {},
  ): Promise<SshAnswer> {
    const { protocol = 0, keepOpen = false } = options;
    const args = [
      ...(protocol === 0 ? [] : ['-o', `SetEnv=GIT_PROTOCOL=version=${protocol}`]),
      ...this.#ssh,
      commandLine,
    ];
    return new Promise((resolve, reject) => {
      const child = spawn('ssh', args, {
        env: { ...this.scene.env },
        timeout: answerTimeoutMs,
        killSignal: 'SIGKILL',
      });
      const stdout: Buffer[] = [];
      let stderr = '';
      child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
      child.stderr.on('data', (chunk: Buffer) => {
        stderr += chunk.toString();
      });
      child.on('error', reject);
      child.on('close', (exitCode) => resolve({ exitCode, stdout: Buffer.concat(stdout), stderr }));
      child.stdin.on('error', () => undefined);
      child.stdin.write(input);
      if (!keepOpen) child.stdin.end();
    });
  }

  /** Pushes a hand-made pack over HTTP and returns the server's report. */
  async push(
    commands: readonly Command[],
    pack: Uint8Array | readonly Uint8Array[] = Buffer.alloc(0),
    options: { readonly capabilities?: string; readonly repository?: string } = {},
  ): Promise<StatusReport> {
    const parts = pack instanceof Uint8Array ? [pack] : pack;
    const body = [Buffer.from(commandSection(commands, options.capabilities)), ...parts];
    const answer = await this.post('git-receive-pack', body, {
      repository: options.repository ?? '/victim.git',
    });
    assert.equal(answer.status, 200, answer.body.toString());
    return reportIn(answer.body);
  }

  /** The same over SSH. */
  async pushOverSsh(commands: readonly Command[], pack: Uint8Array): Promise<StatusReport> {
    const input = Buffer.concat([Buffer.from(commandSection(commands)), pack]);
    const answer = await this.ssh("git-receive-pack '/victim.git'", input, { keepOpen: true });
    assert.equal(answer.exitCode, 0, answer.stderr);
    const reader = new PktReader(chunksOf(answer.stdout));
    // The advertisement goes before.
    while ((await reader.read())?.type !== 'flush');
    const rest: Uint8Array[] = [];
    for await (const chunk of reader.rest()) rest.push(chunk);
    return reportIn(Buffer.concat(rest));
  }

  /** No ref changed, no file was left, no git still runs. */
  async assertUnharmed(): Promise<void> {
    const listed = await this.post(
      'git-upload-pack',
      Buffer.from('0014command=ls-refs\n00010000'),
      { protocol: 2 },
    );
    assert.equal(listed.status, 200, listed.body.toString());
    assert.equal(
      listed.body.toString(),
      `${pktText(`${this.tip} HEAD\n`)}${pktText(`${this.tip} refs/heads/main\n`)}0000`,
    );
    let left: readonly string[] = [];
    await waitFor('gits to end', async () => {
      left = await this.#runningGits();
      return left.length === 0;
    }).catch(() => assert.deepEqual(left, [], 'processes were left'));
    let files: readonly string[] = [];
    await waitFor('files to go', async () => {
      files = await this.#storedFiles();
      return files.join('\n') === this.#files.join('\n');
    }).catch(() => assert.deepEqual(files, this.#files, 'files were left or changed'));
  }

  /** Real git pushes, clones and checks a repository. */
  async assertServes(): Promise<void> {
    const { scene, server, source } = this;
    const before = new Set((await this.#storedFiles()).map(repositoryOf));
    const name = `after-${randomBytes(4).toString('hex')}.git`;
    await scene.git(['push', '-q', server.httpUrl(name), 'main'], { cwd: source });
    const clone = scene.path('work', name);
    await scene.git(['clone', '-q', '--mirror', server.httpUrl(name), clone]);
    await scene.git(['fsck', '--full', '--strict'], { cwd: clone });
    assert.equal((await scene.git(['rev-parse', 'main'], { cwd: clone })).trim(), this.tip);
    await scene.admin(server, 'repo', 'delete', name.replace('.git', ''), '--yes');
    // The answer does not wait for files that are still in use.
    await waitFor('files of the deleted repository to go', async () => {
      this.#files = await this.#storedFiles();
      return this.#files.every((file) => before.has(repositoryOf(file)));
    });
  }

  /** Takes the repository as it is now for the one that attacks must not change, once what goes on behind answers has ended. */
  async settle(): Promise<void> {
    await waitFor('the work behind answers to end', async () => {
      const metrics = await (await fetch(`${this.server.opsUrl}/metrics`)).text();
      return !/^quorate_queue_depth\{queue="outbox"\} [1-9]/m.test(metrics);
    });
    this.#files = await this.#storedFiles();
  }

  /** Path and size of every file of repositories and quarantines. */
  async #storedFiles(): Promise<readonly string[]> {
    const root = this.server.root ?? `${this.server.dataDirectory}/store`;
    return (await filesBelow(root, '')).toSorted();
  }

  /** Without those that serve a repository for a while: they wait for the next question. */
  async #runningGits(): Promise<readonly string[]> {
    const processes = await processTree(this.server.pid);
    return processes
      .filter(({ isNode }) => !isNode)
      .map(({ commandLine }) => commandLine)
      .filter((line) => !/ (?:update-ref --stdin|cat-file --batch)/.test(line));
  }
}

/** Directories of a store whose content comes and goes with pushes and fetches. */
const passing: readonly string[] = ['trash', 'views', 'spares'];

/**
 * What is going while it is looked at is left out. So are the trash, where things go to go, the views, of which the
 * latest is kept for the next fetch, and spare quarantines, of which the next push takes one.
 */
async function filesBelow(root: string, below: string): Promise<string[]> {
  const entries = await readdir(`${root}/${below}`, { withFileTypes: true }).catch(() => []);
  const found = await Promise.all(
    entries
      .filter(({ name }) => below !== '' || !passing.includes(name))
      .map(async (entry) => {
        const name = `${below}${entry.name}`;
        if (entry.isDirectory()) return filesBelow(root, `${name}/`);
        const size = await stat(`${root}/${name}`).then(
          (file) => file.size,
          () => undefined,
        );
        return size === undefined ? [] : [`${name} ${size}`];
      }),
  );
  return found.flat();
}

/** The commands of a push, with the flush behind them. */
export function commandSection(
  commands: readonly Command[],
  capabilities = 'report-status side-band-64k',
): string {
  const lines = commands.map(({ oldOid = zeroOid, newOid, ref }, index) =>
    pktText(`${oldOid} ${newOid} ${ref}${index === 0 ? `\0${capabilities}` : ''}`),
  );
  return `${lines.join('')}0000`;
}

/** The report inside side-band 1. Throws what band 3 says. */
async function reportIn(body: Buffer): Promise<StatusReport> {
  const reader = new PktReader(chunksOf(body));
  const report: Buffer[] = [];
  for (;;) {
    const pkt = await reader.read();
    assert.ok(pkt !== undefined, `the answer is cut off: ${body.toString()}`);
    if (pkt.type === 'flush') break;
    assert.equal(pkt.type, 'data');
    const { band, data } = parseSideBand(pkt.type === 'data' ? pkt.payload : Buffer.alloc(0));
    assert.notEqual(band, 3, data.toString());
    if (band === 1) report.push(data);
  }
  return readStatusReport(new PktReader(chunksOf(Buffer.concat(report))));
}

/** What the last `ERR` packet or side-band 3 in `bytes` says. */
export async function errorIn(bytes: Buffer): Promise<string | undefined> {
  const reader = new PktReader(chunksOf(bytes));
  let message: string | undefined;
  for (;;) {
    const pkt = await reader.read();
    if (pkt === undefined) return message;
    const text = pkt.type === 'data' ? pkt.payload.toString() : '';
    if (text.startsWith('ERR ')) message = text.slice(4);
    if (text.startsWith('\x03')) message = text.slice(1);
  }
}

export async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export { pktText, writePkt };

function ask(
  server: string,
  question: {
    method: string;
    path: string;
    headers: Readonly<Record<string, string>>;
    body: readonly Uint8Array[];
  },
): Promise<HttpAnswer> {
  const { hostname, port } = new URL(server);
  const { method, path, headers, body } = question;
  return new Promise((resolve, reject) => {
    const asking = request({ hostname, port, method, path, headers: { ...headers } });
    const timer = setTimeout(() => asking.destroy(new Error('no answer')), answerTimeoutMs);
    asking.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    asking.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        clearTimeout(timer);
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        });
      });
    });
    void send(asking, body);
  });
}

async function send(
  asking: ReturnType<typeof request>,
  body: readonly Uint8Array[],
): Promise<void> {
  for (const part of body) {
    if (asking.destroyed) return;
    if (!asking.write(part)) {
      await new Promise<void>((resolve) => {
        asking
          .once('drain', resolve)
          .once('close', resolve)
          .once('response', () => resolve());
      });
    }
  }
  asking.end();
}

/** The directory of the repository to which a stored file belongs; of other files nothing. */
function repositoryOf(file: string): string {
  return /^(?:repos\/..\/[^/]+|[^/]+\.git)\//.exec(file)?.[0] ?? '';
}
