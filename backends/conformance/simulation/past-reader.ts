import type { SeededRandom } from './seeded-random.js';
import type { Client, SimulatedRepository } from './workload.js';
import type { World } from './world.js';

/** When the copies of a record are gone, each read waits some seconds for them to come back. */
const longestMs = 30_000;

/** Reads at `eventual` by a record that was known at the beginning, as a front-end does that has lost the coordinator. */
export class PastReader {
  readonly #world: World;
  readonly #client: Client;
  readonly #random: SeededRandom;
  readonly #past: SimulatedRepository;

  constructor(
    world: World,
    client: Client,
    { random, repository }: { random: SeededRandom; repository: SimulatedRepository },
  ) {
    this.#world = world;
    this.#client = client;
    this.#random = random;
    const known = repository.repository;
    const settings = { ...known.settings, 'replication.readConsistency': 'eventual' };
    // Not looked up again.
    this.#past = { ...repository, repository: { ...known, settings }, byName: true };
  }

  async run(reads: number): Promise<void> {
    const { scheduler } = this.#world;
    const endMs = scheduler.nowMs + longestMs;
    for (let i = 0; i < reads && scheduler.nowMs < endMs; i++) {
      const up = this.#world.frontEnds.filter(({ frontEnd }) => frontEnd !== undefined);
      if (up.length > 0) await this.#client.read(this.#past, this.#random.pick(up));
      this.#world.count('reads by old records');
      const pauseMs = this.#random.between(1, 200);
      await new Promise<void>((resolve) => void scheduler.after(pauseMs, resolve));
    }
  }
}
