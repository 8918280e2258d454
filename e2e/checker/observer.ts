import assert from 'node:assert/strict';
import type { Agent } from 'node:http';
import type { Scene, ServerProcess } from '../harness.js';
import { processesUsing, processTree } from '../processes.js';
import { waitFor } from '../wait.js';
import type { Refs } from './check-pushes.js';
import type { RecordedPush } from './push-journal.js';
import { exchange, listRefs } from './raw-git.js';
import { fsck, leftovers, repositoriesOnDisk } from './store-on-disk.js';

/** Looks at a server that nobody pushes to right now. */
export class Observer {
  readonly #scene: Scene;
  readonly #server: ServerProcess;
  readonly #agent: Agent;
  #generations = new Map<string, number>();
  /** Generation at which `git fsck` found nothing, by id. */
  readonly #sound = new Map<string, number>();
  #readLogs = 0;

  constructor(options: { scene: Scene; server: ServerProcess; agent: Agent }) {
    this.#scene = options.scene;
    this.#server = options.server;
    this.#agent = options.agent;
  }

  /** The refs that clients are shown, of those of the repositories that exist. */
  async refs(repositories: readonly string[]): Promise<Refs> {
    const refs = new Map<string, ReadonlyMap<string, string>>();
    for (const repository of repositories) {
      const found = await listRefs(this.#server.httpUrl(repository), this.#agent);
      if (found !== undefined) refs.set(repository, found);
    }
    return refs;
  }

  /**
   * What is served is what lies on the disk; generations never go back, and go on by one for each acknowledged push;
   * nothing is left of what was interrupted: no file, no process; nothing alarming was logged.
   */
  async checkStore(options: {
    readonly after: Refs;
    readonly pushes: readonly RecordedPush[];
    /** `changed`: in full, those that changed since they were last looked at. */
    readonly fsck: 'none' | 'connectivity' | 'changed' | 'full';
    /** Error lines that the fault explains. */
    readonly mayLog?: RegExp;
  }): Promise<void> {
    const { env } = this.#scene;
    const { dataDirectory } = this.#server;
    await this.#assertNothingLeft();
    const onDisk = await repositoriesOnDisk(dataDirectory, env);
    const generations = await this.#checkGenerations(options.after, options.pushes);
    const served = [...options.after].map(([repository, refs]) =>
      told(generations.get(repository) ?? -1, refs),
    );
    assert.deepEqual(
      onDisk.map(({ generation, refs }) => told(generation, refs)).sort(),
      served.sort(),
      'what is served is not what lies on the disk',
    );
    if (options.fsck !== 'none') {
      const depth = options.fsck === 'connectivity' ? 'connectivity' : 'full';
      for (const repository of onDisk) {
        const { id, generation } = repository;
        if (options.fsck === 'changed' && this.#sound.get(id) === generation) continue;
        assert.deepEqual(await fsck(repository, env, depth), []);
        this.#sound.set(id, generation);
      }
    }
    this.#assertQuietLog(options.mayLog);
  }

  async #checkGenerations(
    after: Refs,
    pushes: readonly RecordedPush[],
  ): Promise<ReadonlyMap<string, number>> {
    const generations = new Map<string, number>();
    for (const repository of after.keys()) {
      const now = await this.generation(repository);
      const before = this.#generations.get(repository) ?? 0;
      const here = pushes.filter((push) => push.repository === repository);
      const sure = here.filter((push) => push.updates.some((u) => u.verdict === 'acknowledged'));
      const unsure = here.filter((push) => push.updates.every((u) => u.verdict === 'unknown'));
      const steps = now - before;
      assert.ok(
        steps >= sure.length && steps <= sure.length + unsure.length,
        `${repository} went from generation ${before} to ${now} with ${sure.length} ` +
          `acknowledged pushes and ${unsure.length} without a verdict`,
      );
      generations.set(repository, now);
    }
    this.#generations = generations;
    return generations;
  }

  /** Call what it returns when the data directory was put back to its state of now. */
  remember(): () => void {
    const generations = this.#generations;
    return () => (this.#generations = generations);
  }

  /** As the coordinator has it. */
  async generation(repository: string): Promise<number> {
    const { url, adminToken } = this.#server;
    const address = new URL(`${url}/api/v1/repositories/${encodeURIComponent(repository)}`);
    address.username = 'admin';
    address.password = adminToken;
    const answer = await exchange(address.href, { agent: this.#agent });
    const body: unknown = JSON.parse(answer.body.toString());
    assert.ok(typeof body === 'object' && body !== null && 'repository' in body, String(body));
    const { repository: shown } = body;
    assert.ok(typeof shown === 'object' && shown !== null && 'generation' in shown);
    return Number(shown.generation);
  }

  async #assertNothingLeft(): Promise<void> {
    const { dataDirectory, pid } = this.#server;
    let left: readonly string[] = [];
    // Work after pushes (outbox, maintenance) may still go on; it has to end by itself.
    await waitFor('leftovers to go', async () => {
      const own = new Set(await processTree(pid));
      const foreign = (await processesUsing(dataDirectory)).filter((found) => !own.has(found.pid));
      left = [
        ...(await leftovers(dataDirectory)),
        ...foreign.map((found) => `process ${found.pid}: ${found.commandLine}`),
      ];
      return left.length === 0;
    }).catch(() => assert.deepEqual(left, [], 'left behind'));
  }

  #assertQuietLog(mayLog: RegExp = /^$/): void {
    const lines = this.#server.logs().slice(this.#readLogs);
    this.#readLogs += lines.length;
    const errors = lines
      .split('\n')
      .filter((line) => /"level":"(?:error|fatal)"/.test(line) && !mayLog.test(line));
    assert.deepEqual(errors, [], 'the server logged errors');
  }
}

function told(generation: number, refs: ReadonlyMap<string, string>): string {
  const lines = [...refs].map(([ref, oid]) => `${ref} ${oid}`).sort();
  return [`generation ${generation}`, ...lines].join('\n');
}
