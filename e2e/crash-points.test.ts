import assert from 'node:assert/strict';
import { cp, readdir, rm } from 'node:fs/promises';
import { Agent } from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { checkPushes } from './checker/check-pushes.js';
import type { Refs } from './checker/check-pushes.js';
import {
  Tracer,
  changingCalls,
  cutShort,
  oneFileThread,
  straceArguments,
  wasHit,
} from './checker/fault-injection.js';
import type { Fault } from './checker/fault-injection.js';
import { maxPoints, points } from './checker/fault-points.js';
import { Observer } from './checker/observer.js';
import type { RecordedPush } from './checker/push-journal.js';
import { readMarker } from './checker/store-on-disk.js';
import { zeroOid } from './checker/push-journal.js';
import { annotatedTag, emptyCommit, emptyTree, pushBody, rawPush } from './checker/raw-git.js';
import type { GitObject, RefMove } from './checker/raw-git.js';
import { createScene, waitFor } from './harness.js';
import type { Scene, ServerProcess } from './harness.js';
import { processTree } from './processes.js';
import { Receiver } from './webhook-receiver.js';

/*
 * Instead of at random: a push is cut at its first fsync, rename, unlink, ..., then at its second, and so on, until it
 * gets through. After each the server is started again, and everything has to be right.
 */

class Bench {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly agent = new Agent({ keepAlive: true });
  readonly observer: Observer;
  readonly repositories = ['team/app'];
  refs: Refs = new Map();
  readonly #expected: RecordedPush[] = [];
  #count = 0;

  constructor(scene: Scene, server: ServerProcess) {
    this.scene = scene;
    this.server = server;
    this.observer = new Observer({ scene, server, agent: this.agent });
  }

  static async make(t: TestContext): Promise<Bench> {
    const scene = await createScene(t);
    // Maintenance would come in between and move the points.
    const settings = ['maintenance.enabled=false', 'webhooks.allowedNetworks=127.0.0.1'];
    const own = [...settings, 'webhooks.firstRetry=50ms'].flatMap((each) => ['--set', each]);
    const { env, flags } = oneFileThread;
    const server = await scene.startServer({ env, flags: [...flags, ...own] });
    const bench = new Bench(scene, server);
    t.after(() => bench.agent.destroy());
    const push = await bench.push('team/app', [
      'refs/heads/main',
      'refs/heads/side',
      'refs/heads/go',
    ]);
    await bench.check([push]);
    return bench;
  }

  get traceFile(): string {
    return this.scene.path('work', 'trace');
  }

  /** Moves the given refs on, makes those that are not there; `-ref` is deleted. Atomic. */
  async push(repository: string, refs: readonly string[]): Promise<RecordedPush> {
    const objects: GitObject[] = [emptyTree];
    const moves = refs.map((name): RefMove => {
      const ref = name.replace(/^-/, '');
      const old = this.refs.get(repository)?.get(ref) ?? zeroOid;
      if (name.startsWith('-')) return { ref, old, new: zeroOid };
      this.#count += 1;
      const commit = emptyCommit(`commit ${this.#count}`, old === zeroOid ? [] : [old]);
      objects.push(commit);
      if (!ref.startsWith('refs/tags/')) return { ref, old, new: commit.oid };
      const tag = annotatedTag(`tag-${this.#count}`, commit.oid);
      objects.push(tag);
      return { ref, old, new: tag.oid };
    });
    const verdicts = await rawPush(
      this.server.httpUrl(repository),
      pushBody(moves, objects, { atomic: true }),
      { agent: this.agent, refs: moves.map(({ ref }) => ref) },
    );
    const updates = moves.map((move) => ({
      ...move,
      verdict: verdicts.get(move.ref)?.verdict ?? ('unknown' as const),
    }));
    return { client: 'client', repository, atomic: true, updates };
  }

  /** A push that was acknowledged: the next push builds on it, and the next check wants to find it. */
  expect(push: RecordedPush): void {
    this.#expected.push(push);
    const refs = new Map(this.refs.get(push.repository));
    for (const { ref, new: value } of push.updates) {
      if (value === zeroOid) refs.delete(ref);
      else refs.set(ref, value);
    }
    this.refs = new Map(this.refs).set(push.repository, refs);
  }

  /** Of team/app. */
  async generation(): Promise<number> {
    const shown = await this.scene.admin(this.server, 'repo', 'show', 'team/app', '--json');
    const { generation }: { generation: number } = JSON.parse(shown);
    return generation;
  }

  /** What was recorded since the last check, against what is there now. */
  async check(pushes: readonly RecordedPush[], mayLog?: RegExp): Promise<void> {
    const after = await this.observer.refs(this.repositories);
    assert.deepEqual(checkPushes(this.refs, pushes, after), []);
    const all = [...this.#expected.splice(0), ...pushes];
    await this.observer.checkStore({
      after,
      pushes: all,
      fsck: 'changed',
      ...(mayLog === undefined ? {} : { mayLog }),
    });
    this.refs = after;
  }
}

interface Points {
  readonly bench: Bench;
  readonly stride: number;
  readonly signal: Fault['signal'];
  /** Which processes are traced, with what they start. */
  readonly victims: () => Promise<readonly number[]>;
  readonly push: () => Promise<RecordedPush>;
  /** Error lines that the fault explains. */
  readonly mayLog?: RegExp;
}

/** Pushes with a fault at one point after the other. Returns how many there were. */
async function atEveryPoint(options: Points): Promise<number> {
  let count = 0;
  for (const call of changingCalls) {
    for (const nth of points(options.stride)) {
      if (!(await hitsPoint(options, call, nth))) break;
      count += 1;
    }
  }
  return count;
}

/** Returns whether there was such a point; if not, the push went through. */
async function hitsPoint(options: Points, call: Fault['call'], nth: number): Promise<boolean> {
  const { bench, signal } = options;
  const { server, traceFile: output } = bench;
  const tracer = await Tracer.attach(await options.victims(), { signal, call, nth, output });
  const { hit, result: push } = await cutShort(tracer, { server, signal, act: options.push });
  await bench.check([push], options.mayLog).catch((error: unknown) => {
    throw new Error(`after a fault at ${call} ${nth}: ${String(error)}`, { cause: error });
  });
  // Nothing that was left is in the way of the next. What became of it is checked with the next point.
  const next = await options.push();
  assert.deepEqual(new Set(next.updates.map(({ verdict }) => verdict)), new Set(['acknowledged']));
  bench.expect(next);
  return hit;
}

/** One ref moves on, one is made, one goes or comes back. */
function changes(bench: Bench): readonly string[] {
  const go = bench.refs.get('team/app')?.has('refs/heads/go') === true;
  const refs = bench.refs.get('team/app')?.size ?? 0;
  return ['refs/heads/main', `refs/tags/t${refs}-${go}`, go ? '-refs/heads/go' : 'refs/heads/go'];
}

test('killed at every step of a push', async (t) => {
  const bench = await Bench.make(t);
  const count = await atEveryPoint({
    bench,
    stride: 3,
    signal: 'KILL',
    victims: () => Promise.resolve([bench.server.pid]),
    push: () => bench.push('team/app', changes(bench)),
  });
  t.diagnostic(`${count} points`);
  assert.ok(count > 6, `only ${count} points were met`);
});

test('killed at any step of a push and of what tells webhooks of it', async (t) => {
  const bench = await Bench.make(t);
  const receiver = await Receiver.open();
  t.after(() => receiver.close());
  await bench.scene.admin(bench.server, 'webhook', 'add', 'team/app', receiver.url());
  const before = await bench.generation();
  const count = await atEveryPoint({
    bench,
    stride: 7,
    signal: 'KILL',
    victims: () => Promise.resolve([bench.server.pid]),
    push: () => bench.push('team/app', changes(bench)),
  });
  assert.ok(count > 3, `only ${count} points were met`);
  const committed = (await bench.generation()) - before;
  const told = (): ReadonlySet<unknown> =>
    new Set(receiver.received.map(({ body }) => body['generation']));
  await waitFor('every committed push to be told', () => told().size >= committed);
  assert.equal(told().size, committed);
  t.diagnostic(`${count} points, ${committed} pushes, told ${receiver.received.length} times`);
});

test('killed at every step of a push that makes its repository', async (t) => {
  const bench = await Bench.make(t);
  const count = await atEveryPoint({
    bench,
    stride: 7,
    signal: 'KILL',
    victims: () => Promise.resolve([bench.server.pid]),
    push: () => {
      const repository = `new/r${bench.repositories.length}`;
      bench.repositories.push(repository);
      return bench.push(repository, ['refs/heads/main']);
    },
  });
  t.diagnostic(`${count} points`);
  assert.ok(count > 5, `only ${count} points were met`);
});

for (const signal of ['STOP', 'KILL'] as const) {
  const desc = signal === 'STOP' ? 'everything killed' : 'git alone killed';
  test(`${desc} at every step of git within a push`, async (t) => {
    const bench = await Bench.make(t);
    const count = await atEveryPoint({
      bench,
      stride: 1,
      signal,
      victims: async () => (await processTree(bench.server.pid)).slice(1),
      push: () => bench.push('team/app', changes(bench)),
      // Until the tracer lets go, the git that is started instead of a killed one is killed as well.
      mayLog: /a committed push could not be applied yet/,
    });
    t.diagnostic(`${count} points`);
    assert.ok(count > 3, `only ${count} points were met`);
  });
}

test('killed at every step of the start that finishes an interrupted push', async (t) => {
  const bench = await Bench.make(t);
  const { server, scene } = bench;
  const push = await cutWhileApplying(bench);
  const kept = scene.path('work', 'kept');
  const before = bench.refs;
  const rewind = bench.observer.remember();
  await cp(server.dataDirectory, kept, copyOptions);
  let count = 0;
  for (const call of changingCalls) {
    for (const nth of points(6)) {
      await rm(server.dataDirectory, { recursive: true });
      await cp(kept, server.dataDirectory, copyOptions);
      const hit = await startIsHit(bench, call, nth);
      bench.refs = before;
      rewind();
      await bench.check([push]).catch((error: unknown) => {
        throw new Error(`after a fault at ${call} ${nth} of the start: ${String(error)}`, {
          cause: error,
        });
      });
      for (const { ref, new: value } of push.updates) {
        const now = bench.refs.get('team/app')?.get(ref) ?? zeroOid;
        assert.equal(now, value, 'what was committed is there');
      }
      await server.killTree();
      if (!hit) break;
      count += 1;
    }
  }
  t.diagnostic(`${count} points`);
  assert.ok(count > 4, `only ${count} points were met`);
});

const copyOptions = {
  recursive: true,
  preserveTimestamps: true,
  // Sockets and pipes of a running server.
  filter: (source: string) => path.basename(source) !== 'run',
} as const;

/** Starts with a fault, then without. Returns whether there was such a point. */
async function startIsHit(
  { server, traceFile: output }: Bench,
  call: Fault['call'],
  nth: number,
): Promise<boolean> {
  const fault = straceArguments({ signal: 'KILL', call, nth, output });
  server.relaunch(['strace', '-D', '-qq', ...fault]);
  await server.ready().catch(() => undefined);
  const hit = await wasHit(output);
  if (server.running) await server.killTree();
  await server.relaunch().ready();
  return hit;
}

/** Kills the server after it has recorded what it is about to apply, and before it has. */
async function cutWhileApplying(bench: Bench): Promise<RecordedPush> {
  const { server, traceFile } = bench;
  for (let nth = 1; nth < maxPoints; nth += 1) {
    const fault = { signal: 'KILL', call: 'fsync', nth, output: traceFile } as const;
    const tracer = await Tracer.attach([server.pid], fault);
    const push = await bench.push('team/app', changes(bench));
    await waitFor('a fault', () => tracer.hit());
    await tracer.detach();
    await server.exited();
    if (await isApplying(server)) return push;
    await server.relaunch().ready();
    await bench.check([push]);
  }
  throw new Error('no point was in the middle of an apply');
}

async function isApplying(server: ServerProcess): Promise<boolean> {
  const root = path.join(server.dataDirectory, 'store', 'repos');
  for (const name of await readdir(root, { recursive: true })) {
    if (path.basename(name) !== 'state') continue;
    const { generation, intended } = await readMarker(path.dirname(path.join(root, name)));
    if (intended > generation) return true;
  }
  return false;
}
