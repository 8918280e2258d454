import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ApiScene } from '../../admin/testing/api-scene.js';
import { type Outcome, runQuorate, type RunOptions } from './run-quorate.js';

/** A server, a directory of files, and the environment in which an administrator of the server gives commands. */
export class CliScene {
  readonly server: ApiScene;
  readonly env: Readonly<Record<string, string>>;
  readonly directory: string;

  private constructor(server: ApiScene, env: Readonly<Record<string, string>>, directory: string) {
    this.server = server;
    this.env = env;
    this.directory = directory;
  }

  static async open(): Promise<CliScene> {
    const server = await ApiScene.open();
    const QUORATE_TOKEN = await server.token('root', { admin: true });
    const directory = await mkdtemp(join(tmpdir(), 'quorate-cli-'));
    return new CliScene(server, { QUORATE_URL: server.url, QUORATE_TOKEN }, directory);
  }

  quorate(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return runQuorate(args, { env: this.env, ...options });
  }

  async close(): Promise<void> {
    await this.server.close();
    await rm(this.directory, { recursive: true });
  }
}
