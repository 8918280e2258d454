import assert from 'node:assert/strict';
import { existsSync, readdirSync, utimesSync } from 'node:fs';
import { Agent } from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import {
  changingCalls,
  cutShort,
  oneFileThread,
  Tracer,
  type Fault,
} from './checker/fault-injection.js';
import { points } from './checker/fault-points.js';
import { zeroOid } from './checker/push-journal.js';
import { emptyCommit, emptyTree, listRefs, pushBody, rawPush } from './checker/raw-git.js';
import { fsck, leftovers, poolsOnDisk, repositoriesOnDisk } from './checker/store-on-disk.js';
import { createScene, waitFor, type Scene, type ServerProcess } from './harness.js';
import { processTree } from './processes.js';

/*
 * Forks, and what shares objects with them, cut at every step: making one, the deletion of either side, maintenance.
 * Whatever was acknowledged stays whole, and nothing is left over.
 */

const main = 'refs/heads/main';

class Bench {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly agent = new Agent({ keepAlive: true });
  /** What main is, in repositories that were acknowledged and not given up. */
  readonly tips = new Map<string, string>();
  #commits = 0;

  constructor(scene: Scene, server: ServerProcess) {
    this.scene = scene;
    this.server = server;
  }

  static async make(t: TestContext): Promise<Bench> {
    const scene = await createScene(t);
    const flags = [...oneFileThread.flags, '--set', 'maintenance.enabled=false'];
    const server = await scene.startServer({ env: oneFileThread.env, flags });
    const bench = new Bench(scene, server);
    t.after(() => bench.agent.destroy());
    await bench.push('app');
    await bench.push('app');
    return bench;
  }

  /** The status; 0 when the connection broke. */
  async api(method: string, name: string, body?: object): Promise<number> {
    try {
      const answer = await fetch(`${this.server.url}/api/v1/repositories${name}`, {
        method,
        headers: {
          authorization: `Bearer ${this.server.adminToken}`,
          'content-type': 'application/json',
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      await answer.text();
      return answer.status;
    } catch {
      return 0;
    }
  }

  fork(from: string, to: string): Promise<number> {
    return this.api('POST', `/${from}/fork`, { name: to });
  }

  async push(name: string): Promise<void> {
    const old = this.tips.get(name) ?? zeroOid;
    this.#commits += 1;
    const commit = emptyCommit(`commit ${this.#commits}`, old === zeroOid ? [] : [old]);
    const verdicts = await rawPush(
      this.server.httpUrl(name),
      pushBody([{ ref: main, old, new: commit.oid }], [emptyTree, commit]),
      { agent: this.agent, refs: [main] },
    );
    assert.equal(verdicts.get(main)?.verdict, 'acknowledged');
    this.tips.set(name, commit.oid);
  }

  /** What main is; undefined when there is no such repository. */
  async tip(name: string): Promise<string | undefined> {
    return (await listRefs(this.server.httpUrl(name), this.agent))?.get(main);
  }

  /** What was promised is there and whole; there is a pool exactly while it is shared, and nothing is left over. */
  async check(what: string): Promise<void> {
    const { dataDirectory } = this.server;
    // What a git left in a repository goes when it is asked for first.
    for (const [name, tip] of this.tips) assert.equal(await this.tip(name), tip, what);
    let pools: readonly string[] = [];
    let left: readonly string[] = [];
    await waitFor('removals to end', async () => {
      pools = await poolsOnDisk(dataDirectory);
      left = await leftovers(dataDirectory);
      return left.length === 0 && pools.length === (this.tips.size > 1 ? 1 : 0);
    }).catch(() => assert.fail(`${what}: ${pools.length} pools, left behind: ${left.join(' ')}`));
    const onDisk = await repositoriesOnDisk(dataDirectory, this.scene.env);
    assert.deepEqual(
      new Set(onDisk.map(({ refs }) => refs.get(main))),
      new Set(this.tips.values()),
      what,
    );
    assert.equal(onDisk.length, this.tips.size, what);
    for (const repository of onDisk) {
      assert.deepEqual(await fsck(repository, this.scene.env, 'full'), [], what);
    }
  }

  /** As if nothing ran any more that began before repositories borrowed: their copies may go. */
  async letTimePass(): Promise<void> {
    for (const { directory } of await repositoriesOnDisk(
      this.server.dataDirectory,
      this.scene.env,
    )) {
      const alternates = path.join(directory, 'git/objects/info/alternates');
      if (existsSync(alternates)) utimesSync(alternates, new Date(0), new Date(0));
    }
  }
}

interface Round {
  readonly before: (bench: Bench) => Promise<void>;
  /** What is cut. */
  readonly act: (bench: Bench) => Promise<unknown>;
  /** Finds out what became of it, and brings it to its end. */
  readonly after: (bench: Bench, what: string) => Promise<void>;
}

interface Cut {
  readonly signal: Fault['signal'];
  readonly stride: number;
  readonly victims: (bench: Bench) => Promise<readonly number[]>;
}

/** Of the server itself; of what it starts, with which everything is killed. */
const cuts: Readonly<Record<'server' | 'git', Cut>> = {
  server: { signal: 'KILL', stride: 13, victims: ({ server }) => Promise.resolve([server.pid]) },
  git: {
    signal: 'STOP',
    stride: 4,
    victims: async ({ server }) => (await processTree(server.pid)).slice(1),
  },
};

async function atEveryPoint(t: TestContext, cut: Cut, round: Round): Promise<number> {
  const bench = await Bench.make(t);
  let count = 0;
  for (const call of changingCalls) {
    for (const nth of points(cut.stride)) {
      await round.before(bench);
      const hit = await cutAt(bench, cut, { call, nth, act: round.act });
      const what = `after a fault at ${call} ${nth}`;
      await round.after(bench, what);
      await bench.check(what);
      if (!hit) break;
      count += 1;
    }
  }
  t.diagnostic(`${count} points`);
  return count;
}

/** Whether there was such a point. */
async function cutAt(
  bench: Bench,
  { signal, victims }: Cut,
  { call, nth, act }: Pick<Fault, 'call' | 'nth'> & Pick<Round, 'act'>,
): Promise<boolean> {
  const { server } = bench;
  const output = bench.scene.path('work', 'trace');
  const tracer = await Tracer.attach(await victims(bench), { signal, call, nth, output });
  const { hit } = await cutShort(tracer, { server, signal, act: () => act(bench) });
  return hit;
}

/** A fork that may or may not have been made is whole if it is there; then it goes again. */
async function settleFork(bench: Bench): Promise<void> {
  const tip = await bench.tip('fork');
  if (tip === undefined) return;
  assert.equal(tip, bench.tips.get('app'));
  bench.tips.set('fork', tip);
  await bench.check('a fork that was made');
  assert.equal(await bench.api('DELETE', '/fork'), 200);
  bench.tips.delete('fork');
}

async function forkWhole(bench: Bench, from: string, to: string): Promise<void> {
  assert.equal(await bench.fork(from, to), 201);
  bench.tips.set(to, bench.tips.get(from) ?? '');
  await bench.push(from);
  await bench.push(to);
}

for (const [victim, cut] of Object.entries(cuts)) {
  test(`${victim} killed at every step of a first fork, which makes the pool`, async (t) => {
    const count = await atEveryPoint(t, cut, {
      before: () => Promise.resolve(),
      act: (bench) => bench.fork('app', 'fork'),
      after: settleFork,
    });
    assert.ok(count > 1, `only ${count} points were met`);
  });

  test(`${victim} killed at every step of a further fork`, async (t) => {
    let prepared = false;
    const count = await atEveryPoint(t, cut, {
      before: async (bench) => {
        if (!prepared) await forkWhole(bench, 'app', 'other');
        prepared = true;
        await bench.push('app');
      },
      act: (bench) => bench.fork('app', 'fork'),
      after: settleFork,
    });
    assert.ok(count > 1, `only ${count} points were met`);
  });
}

for (const gone of ['source', 'fork'] as const) {
  test(`server killed at every step of the deletion of the ${gone}`, async (t) => {
    let names = { last: 'app', made: 0 };
    const count = await atEveryPoint(t, cuts.server, {
      before: async (bench) => {
        await forkWhole(bench, names.last, `r${names.made}`);
        await bench.letTimePass();
        for (const name of bench.tips.keys()) await bench.api('POST', `/${name}/maintain`);
      },
      act: (bench) => bench.api('DELETE', `/${doomed()}`),
      after: async (bench) => {
        const tip = await bench.tip(doomed());
        if (tip !== undefined) {
          assert.equal(tip, bench.tips.get(doomed()));
          await bench.check('a deletion that did not happen');
          assert.equal(await bench.api('DELETE', `/${doomed()}`), 200);
        }
        bench.tips.delete(doomed());
        names = {
          last: gone === 'source' ? `r${names.made}` : names.last,
          made: names.made + 1,
        };
      },
    });
    function doomed(): string {
      return gone === 'source' ? names.last : `r${names.made}`;
    }
    assert.ok(count > 3, `only ${count} points were met`);
  });
}

for (const [victim, cut] of Object.entries(cuts)) {
  test(`${victim} killed at every step of maintenance of a source, which gives up its copies`, async (t) => {
    const count = await atEveryPoint(t, cut, {
      before: async (bench) => {
        await forkWhole(bench, 'app', 'fork');
        await bench.letTimePass();
      },
      act: (bench) => bench.api('POST', '/app/maintain'),
      after: async (bench, what) => {
        await bench.check(what);
        assert.equal(await bench.api('POST', '/app/maintain'), 200);
        assert.ok(ownPacks(bench) <= 2);
        // The pool with the objects of both goes, and this is the only one that has them.
        assert.equal(await bench.api('DELETE', '/fork'), 200);
        bench.tips.delete('fork');
      },
    });
    assert.ok(count > 0, `only ${count} points were met`);
  });
}

/** Packs in the repository that has the fewest. */
function ownPacks({ server }: Bench): number {
  const root = path.join(server.dataDirectory, 'store', 'repos');
  const counts = readdirSync(root).flatMap((shard) =>
    readdirSync(path.join(root, shard)).map(
      (id) =>
        readdirSync(path.join(root, shard, id, 'git/objects/pack')).filter((name) =>
          name.endsWith('.pack'),
        ).length,
    ),
  );
  return Math.min(...counts);
}
