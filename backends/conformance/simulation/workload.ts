import { askFrontEnd, broken } from './ask.js';
import { asQuorateError } from '../../contract/errors.js';
import type { Oid, RefCommand, RefSnapshot } from '../../contract/objects.js';
import type { Repository } from '../../contract/repository.js';
import { allRefs, refsWithout } from '../../contract/visible-refs.js';
import type { FrontEnd } from './front-end-host.js';
import type { PushAnswer, PushOperation } from './history.js';
import { encodePack, makeObject, type ModelObject, zeroOid } from './pack-model.js';
import {
  describeAnswer,
  describeCommands,
  failureOf,
  kindOf,
  reportOf,
  requestOf,
} from './push-answers.js';
import type { SeededRandom } from './seeded-random.js';
import type { FrontEndHost, StorageHost } from './hosts.js';
import type { World } from './world.js';

/** Names that are in each other's way now and then. */
export const names = [
  'refs/heads/main',
  'refs/heads/a',
  'refs/heads/a/b',
  'refs/heads/b',
  'refs/heads/b/c/d',
  'refs/heads/c',
  'refs/tags/v1',
  'refs/tags/v2',
] as const;

/** Generations whose objects a store keeps for those who were told of them, less some for pushes on their way. */
const keptGenerations = 6;

/** Of a world; what may be deleted counts. */
const maxForks = 5;

const eventually = { 'replication.readConsistency': 'eventual' };

export interface SimulatedRepository {
  readonly id: string;
  readonly mayBeDeleted: boolean;
  /** As the registry handed it out last. */
  repository: Repository;
  /** It was asked for by its name, and this is what came of it: no other is. */
  readonly byName?: true;
}

export interface Pushed {
  readonly commands: readonly RefCommand[];
  readonly objects: readonly ModelObject[];
  readonly pushOptions?: readonly string[];
}

/** One user: reads, pushes, changes things, one after the other, against any front-end that answers. */
export class Client {
  readonly #world: World;
  readonly #name: string;
  readonly #random: SeededRandom;
  readonly #repositories: SimulatedRepository[];
  /** What this client saw last, perhaps long ago. */
  readonly #seen = new Map<string, ReadonlyMap<string, Oid>>();
  /** The generation of the last push that this client was told of: a read token. */
  readonly #tokens = new Map<string, number>();
  /** Objects that are in other repositories only. */
  readonly #foreign = new Map<string, readonly Oid[]>();
  #made = 0;

  constructor(
    world: World,
    name: string,
    random: SeededRandom,
    /** Gets the forks that it makes. */
    repositories: SimulatedRepository[],
  ) {
    this.#world = world;
    this.#name = name;
    this.#random = random;
    this.#repositories = repositories;
  }

  async run(operations: number): Promise<void> {
    for (let i = 0; i < operations; i++) {
      const host = this.#frontEnd();
      if (host !== undefined) await this.#act(host);
      await this.#pause(this.#random.chance(0.3) ? this.#random.between(0, 3_000) : 1);
    }
  }

  /** What it knows of a repository it takes for what another has, whose name that one got. */
  takeFor(id: string, before: string): void {
    const seen = this.#seen.get(before);
    if (seen === undefined) return;
    this.#foreign.set(id, [...seen.values()]);
    if (!this.#seen.has(id) && this.#random.chance(0.5)) this.#seen.set(id, seen);
  }

  /** Any push that comes to its mind. */
  async push(repository: SimulatedRepository, host: FrontEndHost): Promise<PushAnswer> {
    return this.#push(repository, host, this.#choose(repository));
  }

  /** Just this push. */
  async pushThis(
    repository: SimulatedRepository,
    host: FrontEndHost,
    pushed: Pushed,
  ): Promise<PushAnswer> {
    return this.#push(repository, host, pushed);
  }

  /** The refs that it saw last. */
  seen({ id }: SimulatedRepository): ReadonlyMap<string, Oid> {
    return this.#seen.get(id) ?? new Map();
  }

  /** Pushes so many times to what stays, one pack each, and makes a fork of that. */
  async pushThenFork(pushes: number): Promise<void> {
    const [repository] = this.#repositories;
    if (repository === undefined) return;
    for (let i = 0; i < pushes; i++) {
      const host = this.#frontEnd();
      if (host !== undefined) await this.pushOnce(repository, host);
      else await this.#pause(1_000);
    }
    const host = this.#frontEnd();
    if (host !== undefined) await this.fork(repository, host);
    // As their schedules will have it.
    for (const store of this.#world.stores) {
      if (this.#random.chance(0.6)) this.#maintain(repository, store);
    }
  }

  /** Pushes to what stays as fast as it can, after so long. */
  async pushSoon(afterMs: number, pushes: number): Promise<void> {
    await this.#pause(afterMs);
    for (let i = 0; i < pushes; i++) {
      const [repository] = this.#repositories;
      const host = this.#frontEnd();
      if (host === undefined || repository === undefined) return;
      await this.pushOnce(repository, host);
    }
  }

  /** A push that has to work, now that nothing is broken; `pushOptions`: as of `git push -o`. */
  async pushOnce(
    repository: SimulatedRepository,
    host: FrontEndHost,
    pushOptions: readonly string[] = [],
  ): Promise<PushAnswer> {
    await this.read(repository, host);
    const ref = `refs/heads/last-${this.#name}`;
    const oldOid = this.#seen.get(repository.id)?.get(ref) ?? zeroOid;
    const object = this.#commit(oldOid === zeroOid ? [] : [oldOid]);
    const command = { ref, oldOid, newOid: object.oid };
    return this.#push(repository, host, { commands: [command], objects: [object], pushOptions });
  }

  async read(repository: SimulatedRepository, host: FrontEndHost): Promise<boolean> {
    const { history, scheduler, observer } = this.#world;
    const startMs = scheduler.nowMs;
    const wasDamaged = this.#isDamaged(repository);
    const handedOver = this.#jumps(repository);
    const atLeast = this.#random.chance(0.3) ? (this.#tokens.get(repository.id) ?? 0) : 0;
    const answer = await askFrontEnd(host, async ({ backend }) => {
      const current = await this.#current(backend, repository);
      const eventual = current.settings['replication.readConsistency'] === 'eventual';
      const session = await backend.read(current, new AbortController().signal, { atLeast });
      const { snapshot } = session;
      const endMs = scheduler.nowMs;
      try {
        const tips = [...new Set(snapshot.refs.map(({ oid }) => oid))];
        const others = this.#foreign.get(repository.id) ?? [];
        const sizes = await session.objectSizes([...tips, ...others]);
        const missing = tips.filter((_, i) => sizes[i] === undefined);
        const foreign = others.filter((_, i) => sizes[tips.length + i] !== undefined);
        return { snapshot, endMs, eventual, missing, foreign };
      } finally {
        session.release();
      }
    });
    if (answer === broken || answer instanceof Error) return false;
    const { snapshot, endMs, eventual, foreign } = answer;
    if (eventual) this.#world.count(`eventual reads${atLeast > 0 ? ' with a token' : ''}`);
    const refs = refsOf(snapshot);
    // git says of an object whose pack is damaged that it is missing, and ends a fetch of it: no wrong answer.
    const excused =
      wasDamaged || this.#isDamaged(repository) || handedOver(answer.snapshot.generation);
    const missing = excused ? [] : answer.missing;
    if (missing.length < answer.missing.length) this.#world.count('reads that met damage');
    this.#seen.set(repository.id, refs);
    const { generation, head } = snapshot;
    history.add({
      kind: 'read',
      repositoryId: repository.id,
      startMs,
      endMs,
      oldest: eventual ? atLeast : Math.max(atLeast, observer.generationAt(repository.id, startMs)),
      generation,
      head,
      refs,
      missing,
      foreign,
    });
    return true;
  }

  /**
   * Whether a copy jumped over a generation since now, or had done so before. A read that begins at one copy, which then
   * dies, goes on at another: if that one jumped, it is refused what only the generation between had, as by any server
   * after a forced push.
   */
  #jumps({ id }: SimulatedRepository): (generation: number) => boolean {
    const { happened, observer, scheduler } = this.#world;
    const sent = happened.get('copies sent between stores');
    const newest = observer.generationAt(id, scheduler.nowMs);
    return (generation) =>
      generation < newest || happened.get('copies sent between stores') !== sent;
  }

  #isDamaged({ id }: SimulatedRepository): boolean {
    return this.#world.flippedBits.left({ repositoryId: id }).length > 0;
  }

  /** As the server finds it for each request; now and then the request is slow, and its record is old. */
  async #current(
    backend: FrontEnd['backend'],
    { id, repository, byName }: SimulatedRepository,
  ): Promise<Repository> {
    if (byName === true || this.#random.chance(0.1)) return repository;
    const listed = await backend.repositories.list({ limit: 100 });
    return listed.find((one) => one.id === id) ?? repository;
  }

  async #act(host: FrontEndHost): Promise<void> {
    const repository = this.#random.pick(this.#repositories);
    if (this.#world.forks && this.#random.chance(0.15)) return this.#forkOrDelete(repository, host);
    const dice = this.#random.next();
    if (dice < 0.15) await this.read(repository, host);
    else if (dice < 0.23) await this.#readMany(repository, host);
    else if (dice < 0.27) await this.#readForLong(repository, host);
    else if (dice < 0.3) await this.#setHead(repository, host);
    else if (dice < 0.32) await this.#rename(repository, host);
    else if (dice < 0.35) await this.#reconfigure(repository, host);
    else if (dice < 0.4) this.#maintain(repository, this.#random.pick(this.#world.stores));
    else if (dice < 0.42 && repository.mayBeDeleted) await this.#delete(repository, host);
    else {
      if (this.#random.chance(0.6)) await this.read(repository, host);
      await this.#push(repository, host, this.#choose(repository));
    }
  }

  /** Reads that overlap, as of a page that is reloaded impatiently. */
  async #readMany(repository: SimulatedRepository, host: FrontEndHost): Promise<void> {
    await Promise.all(
      Array.from({ length: 4 }, async () => {
        await this.#pause(this.#random.between(0, this.#random.pick([10, 100, 500])));
        await this.read(repository, host);
      }),
    );
  }

  /** A fetch that takes its time: what its generation has must not go meanwhile. */
  async #readForLong(repository: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const { scheduler } = this.#world;
    const { id } = repository;
    const damaged = this.#isDamaged(repository);
    const handedOver = this.#jumps(repository);
    const boots = this.#world.stores.map((store) => store.boots).join();
    const kept = await askFrontEnd(host, async ({ backend }) => {
      const session = await backend.read(repository.repository, new AbortController().signal);
      const tips = [...new Set(session.snapshot.refs.map(({ oid }) => oid))];
      await this.#pause(this.#random.between(100, 15_000));
      const sizes = await session.objectSizes(tips);
      session.release();
      const { generation } = session.snapshot;
      return { generation, missing: tips.filter((_, i) => sizes[i] === undefined) };
    });
    if (kept === broken || kept instanceof Error || kept.missing.length === 0) return;
    // Stores keep the objects of the last generations; with a restart they forget which those were.
    const passed = this.#world.observer.generationAt(id, scheduler.nowMs) - kept.generation;
    if (passed >= keptGenerations || damaged || this.#isDamaged(repository)) return;
    if (handedOver(kept.generation)) return;
    if (boots !== this.#world.stores.map((store) => store.boots).join()) return;
    this.#world.violate(`generation ${kept.generation} lost ${kept.missing.join()} in a long read`);
  }

  /** As a store's schedule would, at any time. */
  #maintain({ id }: SimulatedRepository, { replica, process }: StorageHost): void {
    if (replica === undefined || process === undefined) return;
    void replica.maintain(id, { signal: new AbortController().signal }).catch((error: unknown) => {
      process.logger.debug({ err: error }, 'maintenance failed');
    });
  }

  async #forkOrDelete(repository: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const forks = this.#repositories.filter(({ mayBeDeleted }) => mayBeDeleted).length;
    if (repository.mayBeDeleted && this.#random.chance(0.4)) await this.#delete(repository, host);
    else if (forks < maxForks) await this.fork(repository, host);
  }

  /** A fork of what there is of a repository, with all its refs or without its tags. */
  async fork({ id }: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const { scheduler, history } = this.#world;
    const name = `forks/${this.#name}-${this.#random.hex(6)}`;
    const visible = this.#random.chance(0.25) ? refsWithout(['refs/tags/v1']) : allRefs;
    history.forks.push({ sourceId: id, name, startMs: scheduler.nowMs, visible: visible.test });
    const fork = { name, access: { public: false, grants: {} }, visible };
    const made = await askFrontEnd(host, async ({ backend }) => {
      const { repositories } = backend;
      const source = (await repositories.list({ limit: 100 })).find((one) => one.id === id);
      return source === undefined ? undefined : repositories.fork(source, fork);
    });
    if (made === broken || made === undefined || made instanceof Error) return;
    this.#world.mayBeDeleted.add(made.id);
    this.#repositories.push({ id: made.id, repository: made, mayBeDeleted: true });
  }

  async #delete({ id }: SimulatedRepository, host: FrontEndHost): Promise<void> {
    this.#world.history.deleted.add(id);
    await askFrontEnd(host, ({ backend }) => backend.repositories.delete(id));
  }

  async #push(
    target: SimulatedRepository,
    host: FrontEndHost,
    { commands, objects, pushOptions = [] }: Pushed,
  ): Promise<PushAnswer> {
    const { scheduler, history } = this.#world;
    const { id } = target;
    const pushId = `${this.#name}-${String(++this.#made).padStart(6, '0')}`;
    const operation: PushOperation = history.add({
      kind: 'push',
      repositoryId: id,
      pushId,
      commands,
      atomic: this.#random.chance(0.3),
      startMs: scheduler.nowMs,
      endMs: Infinity,
      answer: { status: 'unknown' },
    });
    const leaving = new AbortController();
    if (this.#random.chance(0.04)) {
      scheduler.after(this.#random.between(0, 200), () => leaving.abort());
    }
    const answer = await askFrontEnd(host, async ({ backend }) =>
      backend.push(await this.#current(backend, target), {
        ...requestOf(operation, this.#send(objects), leaving.signal),
        pushOptions,
      }),
    );
    if (answer !== broken) {
      operation.answer = answer instanceof Error ? failureOf(answer) : reportOf(answer);
      // Who was told that nobody knows has to reckon with a commit that is on its way still.
      if (operation.answer.status !== 'unknown') operation.endMs = scheduler.nowMs;
    }
    const { answer: told } = operation;
    this.#world.count(`pushes ${kindOf(told, commands.length)}`);
    if (told.status === 'reported' && told.generation !== undefined) {
      this.#tokens.set(id, told.generation);
    }
    this.#world.say(`${pushId} ${describeCommands(commands)}: ${describeAnswer(operation.answer)}`);
    return operation.answer;
  }

  /** Updates, creations and deletions of what this client believes to be there, and objects for them. */
  #choose({ id }: SimulatedRepository): Pushed {
    const random = this.#random;
    const seen = this.#seen.get(id) ?? new Map<string, Oid>();
    const count = random.chance(0.6) ? 1 : 1 + random.below(4);
    const objects: ModelObject[] = [];
    // Most go where most go.
    const first = random.chance(0.35) ? ['refs/heads/main'] : [];
    const wanted = new Set([...first, ...random.shuffled(names)]);
    const commands = [...wanted].slice(0, count).map((ref): RefCommand => {
      const current = seen.get(ref) ?? zeroOid;
      const oldOid = random.chance(0.05) ? random.pick([...seen.values(), zeroOid]) : current;
      if (oldOid !== zeroOid && random.chance(0.25)) return { ref, oldOid, newOid: zeroOid };
      // Sometimes it forgets its history, and sometimes it points to what is there already.
      const known = [...seen.values()];
      if (known.length > 0 && ref.startsWith('refs/heads/') && random.chance(0.05)) {
        return { ref, oldOid, newOid: random.pick(known) };
      }
      const parents = oldOid === zeroOid || random.chance(0.2) ? [] : [oldOid];
      const below = random.chance(0.3) ? [this.#commit(parents)] : [];
      const commit = this.#commit(below[0] === undefined ? parents : [below[0].oid]);
      const own = [...below, commit];
      if (ref.startsWith('refs/tags/')) own.push(this.#object('tag', [commit.oid]));
      objects.push(...own);
      return { ref, oldOid, newOid: own.at(-1)?.oid ?? commit.oid };
    });
    // Now and then a client forgets to send something.
    return { commands, objects: random.chance(0.03) ? objects.slice(1) : objects };
  }

  #commit(parents: readonly Oid[]): ModelObject {
    return this.#object('commit', parents);
  }

  #object(type: ModelObject['type'], links: readonly Oid[]): ModelObject {
    return makeObject(type, links, `${this.#name} ${this.#random.hex(8)}`);
  }

  async #setHead({ id }: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const { scheduler, history } = this.#world;
    const branch = this.#random.pick(names.filter((name) => name.startsWith('refs/heads/')));
    const operation = history.add<Extract<(typeof history.operations)[number], { kind: 'head' }>>({
      kind: 'head',
      repositoryId: id,
      branch,
      startMs: scheduler.nowMs,
      endMs: Infinity,
      answer: 'unknown',
    });
    const answer = await askFrontEnd(host, ({ backend }) =>
      backend.repositories.setHead(id, branch),
    );
    if (answer === broken) return;
    operation.endMs = scheduler.nowMs;
    if (!(answer instanceof Error)) operation.answer = 'done';
    else if (asQuorateError(answer).code !== 'outcome-unknown') operation.answer = 'failed';
  }

  async #rename(one: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const name = `team/${this.#random.hex(6)}`;
    const answer = await askFrontEnd(host, ({ backend }) =>
      backend.repositories.rename(one.id, name),
    );
    if (answer !== broken && !(answer instanceof Error)) one.repository = answer;
  }

  /** Another epoch, under the feet of those who push. */
  async #reconfigure(one: SimulatedRepository, host: FrontEndHost): Promise<void> {
    const limit = String(100 + this.#random.below(100));
    const reads = this.#random.pick([{}, { 'replication.readConsistency': 'strong' }, eventually]);
    const settings = { 'receive.maxRefs': limit, ...reads };
    const answer = await askFrontEnd(host, ({ backend }) =>
      backend.repositories.update(one.id, () => ({ settings })),
    );
    if (answer !== broken && !(answer instanceof Error)) one.repository = answer;
  }

  /** A pack, at once or slowly: that of a slow client is streamed to the stores. */
  async *#send(objects: readonly ModelObject[]): AsyncGenerator<Uint8Array> {
    const bytes = encodePack(objects);
    yield bytes.subarray(0, 40);
    if (this.#random.chance(0.3)) {
      await this.#pause(this.#random.between(10, 100));
      this.#world.count('packs that came slowly');
    }
    yield bytes.subarray(40);
  }

  #frontEnd(): FrontEndHost | undefined {
    const up = this.#world.frontEnds.filter(({ frontEnd }) => frontEnd !== undefined);
    return up.length === 0 ? undefined : this.#random.pick(up);
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#world.scheduler.after(ms, resolve));
  }
}

function refsOf(snapshot: RefSnapshot): ReadonlyMap<string, Oid> {
  return new Map(snapshot.refs.map(({ name, oid }) => [name, oid]));
}
