import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkPushes, type Refs } from '../checker/check-pushes.js';
import { Gate } from '../checker/gate.js';
import { createGitClient, createRawClient, type PushClient } from '../checker/push-clients.js';
import { PushJournal } from '../checker/push-journal.js';
import { PushPlanner } from '../checker/push-plan.js';
import { listRefs } from '../checker/raw-git.js';
import { Seeded } from '../checker/seeded.js';
import { fsck, repositoriesOnDisk, type RepositoryOnDisk } from '../checker/store-on-disk.js';
import { waitFor } from '../wait.js';
import type { ClusterScene } from './cluster-scene.js';
import type { MemberProcess } from './member-process.js';

/** The repository that the clients fight over. */
export const foughtOver = 'team/app';

/**
 * The copies on a node's disk. One whose making a fault cut short, of a repository to which nobody could push, is gone or
 * made anew a sweep later.
 */
export async function wholeCopies(
  node: Pick<MemberProcess, 'dataDirectory' | 'name'>,
  env: Readonly<Record<string, string>>,
): Promise<readonly RepositoryOnDisk[]> {
  let unfinished: unknown;
  return waitFor(`every copy of ${node.name} to be whole`, async () => {
    try {
      return await repositoriesOnDisk(node.dataDirectory, env);
    } catch (error) {
      unfinished = error;
      return undefined;
    }
  }).catch((error: unknown) => {
    throw new Error(String(unfinished), { cause: error });
  });
}

/**
 * Clients that push without end through all front-ends of a cluster, and what they were told. Nothing is believed but
 * that, the refs that are served when all is well again, and what git says of every store's files.
 */
export class PushLoad {
  readonly #ground: ClusterScene;
  readonly #journal = new PushJournal();
  readonly #gate = new Gate();
  readonly #stopping = new AbortController();
  readonly #agent = new Agent({ keepAlive: true });
  #clients: readonly PushClient[] = [];
  #working: Promise<unknown> = Promise.resolve();
  #seen: Refs = new Map();
  /** Those that clients push through. */
  #frontEnds: readonly number[];

  private constructor(ground: ClusterScene) {
    this.#ground = ground;
    this.#frontEnds = ground.cluster.frontEnds.map((_, index) => index);
  }

  static async start(ground: ClusterScene, random: Seeded): Promise<PushLoad> {
    const load = new PushLoad(ground);
    load.#clients = await load.#makeClients(random);
    load.#working = Promise.all(load.#clients.map((client) => load.#work(client)));
    load.#working.catch(() => undefined);
    return load;
  }

  async #makeClients(random: Seeded): Promise<readonly PushClient[]> {
    const { scene } = this.#ground;
    const options = (name: string, races: boolean) => ({
      name,
      journal: this.#journal,
      planner: new PushPlanner({
        client: name,
        random: new Seeded(random.between(0, 2 ** 31)),
        repository: foughtOver,
        races,
        maxNewRepositories: 3,
      }),
      urlOf: (repository: string) => this.#ground.httpUrl(random.pick(this.#frontEnds), repository),
    });
    return [
      createRawClient(options('raw1', true)),
      createRawClient(options('raw2', true)),
      await createGitClient({ ...options('git1', false), scene }),
      await createGitClient({ ...options('git2', false), scene }),
    ];
  }

  async #work(client: PushClient): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      await this.#gate.run(() => client.push());
      // Where nothing is accepted, pushing on at once only makes noise.
      await sleep(20);
    }
  }

  /** Lets the clients push while `happen` does its worst; then everything has to be there. */
  async survive(what: string, happen: () => Promise<void>): Promise<void> {
    this.#gate.open();
    await this.acknowledged(10, 'before');
    await happen();
    await this.acknowledged(5, `after: ${what}`);
    await this.quiet();
    const now = await this.#refsServed();
    assert.deepEqual(checkPushes(this.#seen, this.#journal.take(), now), [], what);
    for (const { planner } of this.#clients) planner.learn(now);
    this.#seen = now;
  }

  /** Meanwhile clients begin pushes through these front-ends only; through none, they wait. */
  async through(frontEnds: readonly number[], work: () => Promise<void>): Promise<void> {
    const before = this.#frontEnds;
    if (frontEnds.length === 0) this.#gate.close();
    else this.#frontEnds = frontEnds;
    try {
      await work();
    } finally {
      this.#frontEnds = before;
      this.#gate.open();
    }
  }

  /** Resolves when so many more refs were acknowledged. */
  async acknowledged(count: number, when: string): Promise<void> {
    const wanted = this.#journal.totals.acknowledged + count;
    const enough = (): boolean => this.#journal.totals.acknowledged >= wanted;
    await waitFor(`pushes ${when}`, enough);
  }

  /** Resolves when nobody pushes any more. */
  async quiet(): Promise<void> {
    this.#gate.close();
    await this.#gate.empty();
  }

  /** Resolves when all copies of every repository are equal. Nobody may push. */
  async converge(copies = 3): Promise<void> {
    for (const repository of this.#seen.keys()) {
      let last = '';
      await waitFor(`the copies of ${repository} to be equal`, async () => {
        last = await this.#ground.admin(0, '--json', 'repo', 'replicas', repository).catch(String);
        const shown: readonly { readonly role?: string; readonly sound?: boolean }[] =
          last.startsWith('[') ? JSON.parse(last) : [];
        return (
          shown.length === copies && shown.every(({ role, sound }) => role === 'voter' && sound)
        );
      }).catch((error: unknown) => {
        throw new Error(last, { cause: error });
      });
    }
  }

  /** What lies on the disks of the storage nodes is whole. */
  async checkDisks(): Promise<void> {
    const { cluster, scene } = this.#ground;
    for (const node of cluster.storage) {
      for (const repository of await wholeCopies(node, scene.env)) {
        const [problem] = await fsck(repository, scene.env, 'full');
        assert.equal(problem, undefined, node.name);
      }
    }
  }

  /** One line for people. */
  summary(faults: number): string {
    const { pushes, acknowledged, refused, unknown } = this.#journal.totals;
    return (
      `${faults} faults, ${pushes} pushes; refs: ${acknowledged} acknowledged, ${refused} refused, ` +
      `${unknown} without a verdict`
    );
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    this.#gate.open();
    await this.#working;
    for (const client of this.#clients) client.close();
    this.#agent.destroy();
  }

  async #refsServed(): Promise<Refs> {
    const refs = new Map<string, ReadonlyMap<string, string>>();
    const repositories = new Set(this.#clients.flatMap(({ planner }) => planner.repositories));
    for (const repository of repositories) {
      const found = await waitFor(`${repository} to be served`, () =>
        listRefs(this.#ground.httpUrl(1, repository), this.#agent).then(
          (refsOf) => ({ refsOf }),
          () => undefined,
        ),
      );
      if (found.refsOf !== undefined) refs.set(repository, found.refsOf);
    }
    return refs;
  }
}
