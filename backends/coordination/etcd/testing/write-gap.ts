import { setTimeout as sleep } from 'node:timers/promises';
import type { Coordinator } from '../../../contract/coordinator.js';
import { asQuorateError } from '../../../contract/errors.js';
import type { EtcdCluster } from './etcd-cluster.js';

/** What a writer that goes on after every error sees of one kill of etcd's leader. */
export interface WriteGap {
  /** Longest time between two acknowledged writes. */
  readonly gapMs: number;
  /** Longest time between two linearizable reads. */
  readonly readGapMs: number;
  /** Elections that it took: more than one when the votes were split. */
  readonly elections: number;
  /** Errors that the writer saw, by code. */
  readonly errors: Readonly<Record<string, number>>;
}

const writesAround = 20;
const pauseAfterErrorMs = 10;
/** Far beyond some elections. */
const goneOnTimeoutMs = 60_000;

/**
 * Kills the leader with SIGKILL while one writer and one reader go on, waits until both have gone on for a while, and
 * starts the member again.
 */
export async function measureWriteGap(
  cluster: EtcdCluster,
  coordinator: Coordinator,
): Promise<WriteGap> {
  const errors: Record<string, number> = {};
  const failed = async (error: unknown): Promise<void> => {
    const { code } = asQuorateError(error);
    errors[code] = (errors[code] ?? 0) + 1;
    await sleep(pauseAfterErrorMs);
  };
  const writer = new Repeater(async (n) => {
    const value = Buffer.from(String(n));
    await coordinator.transaction({
      compares: [],
      success: [{ type: 'put', key: 'write-gap', value }],
      failure: [],
    });
  }, failed);
  const reader = new Repeater(async () => {
    await coordinator.get('write-gap');
    // A reader in a tight loop would measure the machine.
    await sleep(5);
  }, failed);
  const both = [writer, reader];
  const goneOn = (): Promise<unknown> => Promise.all(both.map((one) => one.more(writesAround)));
  try {
    await goneOn();
    const term = await cluster.term();
    const killed = await cluster.killLeader();
    await goneOn();
    const elections = (await cluster.term()) - term;
    killed.start();
    return { gapMs: writer.longestMs, readGapMs: reader.longestMs, elections, errors };
  } finally {
    await Promise.all(both.map((one) => one.stop()));
    await cluster.ready();
  }
}

/** Does something again and again, and remembers the longest time between two successes. */
class Repeater {
  longestMs = 0;
  #done = 0;
  #stopped = false;
  readonly #running: Promise<void>;

  constructor(action: (n: number) => Promise<void>, failed: (error: unknown) => Promise<void>) {
    this.#running = this.#run(action, failed);
  }

  async more(count: number): Promise<void> {
    const wanted = this.#done + count;
    const deadlineMs = performance.now() + goneOnTimeoutMs;
    while (this.#done < wanted) {
      if (performance.now() > deadlineMs) throw new Error('etcd does not go on');
      await sleep(5);
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(
    action: (n: number) => Promise<void>,
    failed: (error: unknown) => Promise<void>,
  ): Promise<void> {
    let lastMs = performance.now();
    while (!this.#stopped) {
      try {
        await action(this.#done);
        const nowMs = performance.now();
        if (this.#done > 0) this.longestMs = Math.max(this.longestMs, nowMs - lastMs);
        lastMs = nowMs;
        this.#done += 1;
      } catch (error) {
        await failed(error);
      }
    }
  }
}
