import { askFrontEnd, broken } from './ask.js';
import type { SeededRandom } from './seeded-random.js';
import type { Client, SimulatedRepository } from './workload.js';
import type { FrontEndHost } from './hosts.js';
import type { World } from './world.js';

/** Few, so that many are about one; one lies inside another. */
const names = ['shared/app', 'shared/lib', 'shared/lib/core'] as const;

/**
 * A user who knows names only, as everybody does: what is there under one is read and pushed to, made when it is not
 * there (`autoCreate`), renamed and deleted, while others do the same; and what was found is old by the time it is used.
 */
export class NameClient {
  readonly #world: World;
  readonly #client: Client;
  readonly #random: SeededRandom;
  /** What each name led this user to. */
  readonly #found = new Map<string, readonly string[]>();

  constructor(world: World, client: Client, random: SeededRandom) {
    this.#world = world;
    this.#client = client;
    this.#random = random;
  }

  async run(operations: number): Promise<void> {
    for (let i = 0; i < operations; i++) {
      const up = this.#world.frontEnds.filter(({ frontEnd }) => frontEnd !== undefined);
      if (up.length > 0) await this.#act(this.#random.pick(names), this.#random.pick(up));
      await this.#pause(this.#random.chance(0.3) ? this.#random.between(0, 2_000) : 1);
    }
  }

  async #act(name: string, host: FrontEndHost): Promise<void> {
    const dice = this.#random.next();
    const found = (await this.#look(name, host)) ?? (await this.#create(name, host));
    if (found === undefined) return;
    // The rest of the request comes when it comes.
    if (this.#random.chance(0.4)) await this.#pause(this.#random.between(0, 4_000));
    if (dice < 0.25) await this.#delete(name, found, host);
    else if (dice < 0.33) await this.#rename(found, host);
    else if (dice < 0.6) await this.#client.read(found, host);
    else await this.#client.push(found, host);
  }

  async #look(name: string, host: FrontEndHost): Promise<SimulatedRepository | undefined> {
    const { history, scheduler } = this.#world;
    const startMs = scheduler.nowMs;
    const found = await askFrontEnd(host, ({ backend }) => backend.repositories.get(name));
    if (found === broken || found instanceof Error) return undefined;
    history.named.push({ kind: 'lookup', name, startMs, endMs: scheduler.nowMs, found: found?.id });
    if (found === undefined) return undefined;
    const before = this.#found.get(name) ?? [];
    if (!before.includes(found.id)) {
      const last = before.at(-1);
      if (last !== undefined) this.#client.takeFor(found.id, last);
      this.#found.set(name, [...before, found.id]);
    }
    return { id: found.id, repository: found, mayBeDeleted: true, byName: true };
  }

  async #create(name: string, host: FrontEndHost): Promise<SimulatedRepository | undefined> {
    const { history, scheduler } = this.#world;
    const startMs = scheduler.nowMs;
    const made = await askFrontEnd(host, ({ backend }) =>
      backend.repositories.create({
        name,
        defaultBranch: 'main',
        objectFormat: 'sha1',
        settings: {},
        access: { public: false, grants: {} },
      }),
    );
    if (made === broken || made instanceof Error) return undefined;
    const { id } = made;
    history.named.push({ kind: 'create', name, startMs, endMs: scheduler.nowMs, made: id });
    const before = this.#found.get(name) ?? [];
    const last = before.at(-1);
    if (last !== undefined) this.#client.takeFor(id, last);
    this.#found.set(name, [...before, id]);
    this.#world.mayBeDeleted.add(id);
    return { id, repository: made, mayBeDeleted: true, byName: true };
  }

  async #delete(name: string, { id }: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const { history, scheduler } = this.#world;
    const startMs = scheduler.nowMs;
    history.deleted.add(id);
    const gone = await askFrontEnd(host, async ({ backend }) => {
      await backend.repositories.delete(id);
      return true;
    });
    if (gone !== true) return;
    const endMs = scheduler.nowMs;
    history.named.push({ kind: 'delete', name, startMs, endMs, repositoryId: id });
  }

  async #rename({ id }: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const name = this.#random.pick(names);
    await askFrontEnd(host, ({ backend }) => backend.repositories.rename(id, name));
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#world.scheduler.after(ms, resolve));
  }
}
