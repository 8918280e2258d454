import assert from 'node:assert/strict';
import { createScene } from './harness.js';
import type { Finished, GitOptions, Scene, ServerProcess } from './harness.js';

export const transports = ['http', 'ssh'] as const;
type Transport = (typeof transports)[number];

/** A user with a key and a token. */
export interface Pusher {
  readonly urls: Readonly<Record<Transport, (name: string) => string>>;
  readonly env: Readonly<Record<string, string>>;
  readonly privateKeyFile: string;
}

/** A repository on the server that ann and bob may write, with `main` in it, and a clone. */
export interface Ground {
  readonly name: string;
  readonly clone: string;
}

/** A server, and two users who push to it. */
export class RuleGround {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly ann: Pusher;
  readonly bob: Pusher;
  #count = 0;

  private constructor(parts: Pick<RuleGround, 'scene' | 'server' | 'ann' | 'bob'>) {
    this.scene = parts.scene;
    this.server = parts.server;
    this.ann = parts.ann;
    this.bob = parts.bob;
  }

  static async open(): Promise<RuleGround> {
    const scene = await createScene();
    const server = await scene.startServer();
    const ann = await makeUser(scene, server, 'ann');
    const bob = await makeUser(scene, server, 'bob');
    return new RuleGround({ scene, server, ann, bob });
  }

  async ground(): Promise<Ground> {
    this.#count += 1;
    const name = `rules/r${this.#count}`;
    await this.admin('repo', 'create', name);
    for (const user of ['ann', 'bob']) await this.admin('repo', 'grant', name, user, 'write');
    const clone = await this.scene.makeRepository({ commits: 2 });
    await this.scene.git(['push', '-q', this.ann.urls.http(name), 'main'], { cwd: clone });
    return { name, clone };
  }

  admin(...words: readonly string[]): Promise<string> {
    return this.scene.admin(this.server, ...words);
  }

  /** `quorate rule set`. */
  set(...words: readonly string[]): Promise<string> {
    return this.admin('rule', 'set', ...words);
  }

  push(
    { name, clone }: Ground,
    pusher: Pusher,
    transport: Transport,
    refspecs: readonly string[],
  ): Promise<Finished> {
    return this.scene.tryGit(['push', '--porcelain', pusher.urls[transport](name), ...refspecs], {
      cwd: clone,
      env: pusher.env,
    });
  }

  async commit(clone: string, message: string, options: GitOptions = {}): Promise<void> {
    const args = ['commit', '-q', '--allow-empty', '-m', message];
    await this.scene.git(args, { cwd: clone, ...options });
  }
}

async function makeUser(scene: Scene, server: ServerProcess, name: string): Promise<Pusher> {
  await scene.admin(server, 'user', 'add', name);
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', name, key.publicKeyFile);
  const token = (await scene.admin(server, 'token', 'create', name)).trim();
  return {
    env: await key.environment(server),
    privateKeyFile: key.privateKeyFile,
    urls: {
      http: (repository) => `${server.url.replace('http://', `http://x:${token}@`)}/${repository}`,
      ssh: (repository) => `ssh://git@${server.sshHost}:${server.sshPort}/${repository}`,
    },
  };
}

/** The push is refused, on the ref's own line, by the rule and for this reason. */
export function refused(result: Finished, reason: RegExp): void {
  assert.equal(result.exitCode, 1, result.stderr + result.stdout);
  assert.match(result.stdout, /\[remote rejected\] \(rule /);
  assert.match(result.stdout, reason);
}

export function accepted(result: Finished): void {
  assert.equal(result.exitCode, 0, result.stderr + result.stdout);
}
