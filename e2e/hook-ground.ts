import { writeFile } from 'node:fs/promises';
import { createScene } from './harness.js';
import type { Finished, Scene, ServerProcess } from './harness.js';

export const transports = ['http', 'ssh'] as const;
export type Transport = (typeof transports)[number];

/** A repository on the server, and a clone of it that is one commit ahead. */
export interface Ground {
  readonly name: string;
  readonly clone: string;
}

/** A server, and an administrator who sets hooks and pushes. */
export class HookGround {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly #sshEnv: Readonly<Record<string, string>>;
  #count = 0;

  private constructor(scene: Scene, server: ServerProcess, sshEnv: Record<string, string>) {
    this.scene = scene;
    this.server = server;
    this.#sshEnv = sshEnv;
  }

  static async open(settings: readonly string[] = []): Promise<HookGround> {
    const scene = await createScene();
    const flags = settings.flatMap((setting) => ['--set', setting]);
    const server = await scene.startServer({ flags });
    const key = await scene.sshKey();
    await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
    return new HookGround(scene, server, { ...(await key.environment(server)) });
  }

  async make(): Promise<Ground> {
    this.#count += 1;
    const number = this.#count;
    const name = `hooks/r${number}`;
    await this.scene.admin(this.server, 'repo', 'create', name);
    const clone = await this.scene.makeRepository({ commits: 1 });
    await this.scene.git(['push', '-q', this.url('http', name), 'main'], { cwd: clone });
    await this.scene.commit(clone, 'next.txt', `next ${number}`);
    return { name, clone };
  }

  url(transport: Transport, name: string): string {
    const { url, adminToken, sshHost, sshPort } = this.server;
    return transport === 'http'
      ? `${url.replace('http://', `http://x:${adminToken}@`)}/${name}`
      : `ssh://git@${sshHost}:${sshPort}/${name}`;
  }

  /** A shell script of these lines. `scope` is a repository, or `--server`. */
  async setHook(scope: string, stage: string, lines: readonly string[]): Promise<void> {
    this.#count += 1;
    const file = this.scene.path('work', `hook-${this.#count}`);
    await writeFile(file, ['#!/bin/sh', ...lines, ''].join('\n'));
    await this.scene.admin(this.server, 'hook', 'set', scope, stage, file);
  }

  async removeHook(scope: string, stage: string): Promise<void> {
    await this.scene.admin(this.server, 'hook', 'remove', scope, stage);
  }

  push(
    transport: Transport,
    { name, clone }: Ground,
    refs: readonly string[],
    pushOptions: readonly string[] = [],
  ): Promise<Finished> {
    const options = pushOptions.map((option) => `--push-option=${option}`);
    return this.scene.tryGit(
      ['push', '--porcelain', ...options, this.url(transport, name), ...refs],
      { cwd: clone, env: this.#sshEnv },
    );
  }

  async tip({ clone }: Ground, ref: string): Promise<string> {
    return (await this.scene.git(['rev-parse', ref], { cwd: clone })).trim();
  }

  async remoteTip({ name }: Ground, ref: string): Promise<string> {
    return (await this.scene.git(['ls-remote', this.url('http', name), ref])).slice(0, 40);
  }
}
