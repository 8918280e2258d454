import assert from 'node:assert/strict';
import type {
  Finished,
  GitOptions,
  RepositoryShape,
  Scene,
  ServerProcess,
} from '../../e2e/harness.js';

/** How a git client reaches a server. */
export interface Transport {
  readonly name: string;
  readonly scheme: 'http' | 'ssh';
  readonly protocol: 0 | 1 | 2;
}

export const transports: readonly Transport[] = [
  { name: 'HTTP, protocol 0', scheme: 'http', protocol: 0 },
  { name: 'HTTP, protocol 1', scheme: 'http', protocol: 1 },
  { name: 'HTTP, protocol 2', scheme: 'http', protocol: 2 },
  { name: 'SSH, protocol 0', scheme: 'ssh', protocol: 0 },
  { name: 'SSH, protocol 2', scheme: 'ssh', protocol: 2 },
];

/** A running server with somebody signed in who may do everything. */
export interface FrontEnd {
  readonly scene: Scene;
  readonly server: ServerProcess;
  /** Environment in which git signs in over SSH. */
  readonly sshEnvironment: Readonly<Record<string, string>>;
}

let count = 0;

/** A real git over one transport, and what it works on. */
export class FrontEndClient {
  readonly transport: Transport;
  readonly #frontEnd: () => FrontEnd;

  constructor(transport: Transport, frontEnd: () => FrontEnd) {
    this.transport = transport;
    this.#frontEnd = frontEnd;
  }

  get scene(): Scene {
    return this.#frontEnd().scene;
  }

  /** A name of a repository, or of a directory, unlike any other. */
  freshName(): string {
    count += 1;
    return `team/app-${count}`;
  }

  freshPath(): string {
    count += 1;
    return this.scene.path('work', `copy-${count}`);
  }

  url(name: string): string {
    const { server } = this.#frontEnd();
    return this.transport.scheme === 'http' ? server.httpUrl(name) : server.sshUrl(name);
  }

  /** Runs git; failing is an answer. */
  try(args: readonly string[], options: GitOptions = {}): Promise<Finished> {
    const { scene, sshEnvironment } = this.#frontEnd();
    const env = this.transport.scheme === 'ssh' ? sshEnvironment : {};
    return scene.tryGit(args, {
      protocol: this.transport.protocol,
      ...options,
      env: { ...env, ...options.env },
    });
  }

  /** Runs git, which has to succeed. Returns its stdout without the last line feed. */
  async git(args: readonly string[], options: GitOptions = {}): Promise<string> {
    const { exitCode, stdout, stderr } = await this.try(args, options);
    assert.equal(exitCode, 0, `git ${args.join(' ')}:\n${stderr}`);
    return stdout.replace(/\n$/, '');
  }

  /** Runs git, which has to fail. Returns its stderr. */
  async refused(args: readonly string[], options: GitOptions = {}): Promise<string> {
    const { exitCode, stderr } = await this.try(args, options);
    assert.notEqual(exitCode, 0, `git ${args.join(' ')} was to fail`);
    return stderr;
  }

  /** Runs a `quorate` command. */
  admin(...args: readonly string[]): Promise<string> {
    const { scene, server } = this.#frontEnd();
    return scene.admin(server, ...args);
  }

  async clone(name: string, ...options: readonly string[]): Promise<string> {
    const directory = this.freshPath();
    await this.git(['clone', '-q', ...options, this.url(name), directory]);
    return directory;
  }

  /** A work tree, and a repository on the server with the same `main`. */
  async published(shape: RepositoryShape = {}): Promise<{ name: string; source: string }> {
    const name = this.freshName();
    const source = await this.scene.makeRepository(shape);
    await this.git(['push', '-q', this.url(name), 'main'], { cwd: source });
    return { name, source };
  }

  revision(directory: string, revision: string): Promise<string> {
    return this.git(['rev-parse', '--verify', revision], { cwd: directory });
  }

  async commitCount(directory: string, revision = 'HEAD'): Promise<number> {
    return Number(await this.git(['rev-list', '--count', revision], { cwd: directory }));
  }

  /** Ref -> value on the server, less HEAD and peeled tags. */
  async serverRefs(name: string): Promise<Record<string, string>> {
    const listing = await this.git(['ls-remote', '--refs', '-q', this.url(name)]);
    const lines = listing.split('\n').filter((line) => line !== '');
    return Object.fromEntries(
      lines.map((line) => {
        const [oid = '', ref = ''] = line.split('\t');
        return [ref, oid];
      }),
    );
  }
}
