import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { type Ask, FairQueue, type FairQueueLimits } from './fair-queue.js';

/** Time passes when it is told to. */
class ManualClock implements Clock {
  #nowMs = 0;
  readonly #sleepers = new Set<{ readonly atMs: number; readonly wake: () => void }>();
  nowMs(): number {
    return this.#nowMs;
  }
  monotonicMs(): number {
    return this.#nowMs;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const sleeper = { atMs: this.#nowMs + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleepers.delete(sleeper);
        resolve();
      });
    });
  }
  get sleeping(): number {
    return this.#sleepers.size;
  }
  async pass(ms: number): Promise<void> {
    this.#nowMs += ms;
    for (const sleeper of this.#sleepers) {
      if (sleeper.atMs > this.#nowMs) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
    await turn();
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

class Ground {
  readonly clock = new ManualClock();
  readonly queue: FairQueue;
  /** Names of what was admitted, in order. */
  readonly admitted: string[] = [];
  readonly failed = new Map<string, string>();
  readonly #running = new Map<string, Ask>();

  constructor(limits: Partial<FairQueueLimits>) {
    this.queue = new FairQueue(
      {
        capacity: Infinity,
        perKey: [Infinity],
        maxWaiting: 100,
        maxWaitingPerKey: 100,
        maxWaitMs: 1000,
        ...limits,
      },
      { clock: this.clock, refusal: (why) => new QuorateError('resource-exhausted', why) },
    );
  }

  ask(
    name: string,
    keys: readonly string[],
    { cost = 1, signal = new AbortController().signal } = {},
  ): void {
    const ask = { cost, keys, signal };
    const admit = (): void => {
      this.admitted.push(name);
      this.#running.set(name, ask);
    };
    const waiting = this.queue.enter(ask);
    if (waiting === undefined) admit();
    else {
      waiting.then(admit, (error: unknown) => {
        this.failed.set(name, error instanceof QuorateError ? error.message : String(error));
      });
    }
  }

  async leave(name: string): Promise<void> {
    const ask = this.#running.get(name);
    assert.ok(ask !== undefined, `${name} runs`);
    this.queue.leave(ask);
    await turn();
  }
}

test('what fits is admitted at once, without a promise', () => {
  const ground = new Ground({ capacity: 2 });
  ground.ask('a1', ['a']);
  ground.ask('a2', ['a']);
  assert.deepEqual(ground.admitted, ['a1', 'a2']);
  assert.equal(ground.queue.waiting, 0);
  assert.equal(ground.queue.held, 2);
});

test('keys take turns, and each goes by order of arrival', async () => {
  const ground = new Ground({ capacity: 1 });
  for (const name of ['a1', 'a2', 'a3', 'a4']) ground.ask(name, ['a']);
  ground.ask('b1', ['b']);
  ground.ask('b2', ['b']);
  ground.ask('c1', ['c']);
  for (let done = 0; done < 6; done += 1) await ground.leave(ground.admitted.at(-1) ?? '');
  assert.deepEqual(ground.admitted, ['a1', 'a2', 'b1', 'c1', 'a3', 'b2', 'a4']);
});

test('one key at its share waits behind itself alone', async () => {
  const ground = new Ground({ capacity: 4, perKey: [3] });
  for (const name of ['a1', 'a2', 'a3', 'a4']) ground.ask(name, ['a']);
  ground.ask('b1', ['b']);
  await turn();
  assert.deepEqual(ground.admitted, ['a1', 'a2', 'a3', 'b1']);
  await ground.leave('b1');
  assert.deepEqual(ground.admitted, ['a1', 'a2', 'a3', 'b1'], 'the rest is for others');
  await ground.leave('a1');
  assert.deepEqual(ground.admitted, ['a1', 'a2', 'a3', 'b1', 'a4']);
});

test('a second key that is at its share holds up nobody else', async () => {
  const ground = new Ground({ perKey: [10, 1] });
  ground.ask('a-hot', ['a', 'hot']);
  ground.ask('a-hot-2', ['a', 'hot']);
  ground.ask('a-cold', ['a', 'cold']);
  ground.ask('b-hot', ['b', 'hot']);
  await turn();
  assert.deepEqual(ground.admitted, ['a-hot', 'a-cold']);
  await ground.leave('a-hot');
  assert.deepEqual(ground.admitted, ['a-hot', 'a-cold', 'a-hot-2']);
  await ground.leave('a-hot-2');
  assert.deepEqual(ground.admitted, ['a-hot', 'a-cold', 'a-hot-2', 'b-hot']);
});

test('what is large is not overtaken for ever by what is small', async () => {
  const ground = new Ground({ capacity: 10, perKey: [10] });
  ground.ask('small-1', ['a'], { cost: 4 });
  ground.ask('large', ['b'], { cost: 8 });
  ground.ask('small-2', ['c'], { cost: 4 });
  await turn();
  assert.deepEqual(ground.admitted, ['small-1'], 'small-2 would fit, and waits');
  await ground.leave('small-1');
  assert.deepEqual(ground.admitted, ['small-1', 'large']);
  await ground.leave('large');
  assert.deepEqual(ground.admitted, ['small-1', 'large', 'small-2']);
});

test('what is larger than everything runs alone', async () => {
  const ground = new Ground({ capacity: 10, perKey: [7] });
  ground.ask('giant', ['a'], { cost: 100 });
  ground.ask('small', ['b']);
  await turn();
  assert.deepEqual(ground.admitted, ['giant']);
  await ground.leave('giant');
  assert.deepEqual(ground.admitted, ['giant', 'small']);
});

test('waiting is bounded in number and in time', async () => {
  const ground = new Ground({ capacity: 1, maxWaitingPerKey: 1, maxWaiting: 2 });
  ground.ask('a1', ['a']);
  ground.ask('a2', ['a']);
  ground.ask('a3', ['a']);
  ground.ask('b1', ['b']);
  ground.ask('c1', ['c']);
  await turn();
  assert.deepEqual(Object.fromEntries(ground.failed), { a3: 'full', c1: 'full' });
  await ground.clock.pass(999);
  assert.equal(ground.queue.waiting, 2);
  await ground.clock.pass(1);
  assert.equal(ground.failed.get('a2'), 'too-long');
  assert.equal(ground.failed.get('b1'), 'too-long');
  assert.equal(ground.queue.waiting, 0);
  await ground.leave('a1');
  assert.equal(ground.queue.held, 0);
  assert.equal(ground.clock.sleeping, 0);
});

test('who leaves the queue frees those behind', async () => {
  const ground = new Ground({ capacity: 10, perKey: [10] });
  const gone = new AbortController();
  ground.ask('running', ['a'], { cost: 5 });
  ground.ask('large', ['b'], { cost: 9, signal: gone.signal });
  ground.ask('small', ['c'], { cost: 5 });
  await turn();
  assert.deepEqual(ground.admitted, ['running']);
  gone.abort();
  await turn();
  assert.deepEqual(ground.admitted, ['running', 'small']);
  assert.equal(ground.failed.get('large'), 'the client is gone');
  ground.ask('late', ['d'], { cost: 9, signal: gone.signal });
  await turn();
  assert.equal(ground.failed.get('late'), 'the client is gone');
  await ground.leave('running');
  await ground.leave('small');
  assert.equal(ground.clock.sleeping, 0);
});

test('nothing is left behind by any order of coming and going', async () => {
  const limits = { capacity: 5, perKey: [3, 2], maxWaitingPerKey: 1000, maxWaiting: 1000 };
  const ground = new Ground(limits);
  let most = 0;
  let seed = 7;
  const next = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor(seed / 65_536) % below;
  };
  const running = (): string[] => ground.admitted.filter((name) => !left.has(name));
  const left = new Set<string>();
  for (let step = 0; step < 500; step += 1) {
    ground.ask(`r${step}`, [`k${next(4)}`, `s${next(3)}`], { cost: 1 + next(2) });
    await turn();
    most = Math.max(most, ground.queue.held);
    const name = running()[next(Math.max(1, running().length))];
    if (name !== undefined && next(3) > 0) {
      left.add(name);
      await ground.leave(name);
    }
  }
  while (running().length > 0) {
    const [name = ''] = running();
    left.add(name);
    await ground.leave(name);
  }
  assert.equal(ground.admitted.length, 500);
  assert.equal(ground.queue.held, 0);
  assert.equal(ground.queue.waiting, 0);
  assert.equal(most, 5);
});
