import { keys } from '../../contract/keys.js';
import type { NodeDirectoryDependencies } from '../../replicated/node-directory.js';
import type { Consistency } from '../../replicated/quorum.js';
import {
  type Birth,
  CommitObserver,
  type ObservedConfiguration,
  type ObservedEntry,
  recordOf,
  textOf,
} from './commit-observer.js';
import { BegunCopies } from './begun-copies.js';
import { checkPrepared, keptUpdates } from './commit-checks.js';
import { startFrontEnd } from './front-end-host.js';
import { FlippedBits } from './flipped-bits.js';
import { expected } from './happenings.js';
import { History } from './history.js';
import type { FrontEndHost, Host, StorageHost } from './hosts.js';
import { LargePushes } from './large-pushes.js';
import type { Losses } from './losses.js';
import { NameObserver } from './name-observer.js';
import { Network } from './network.js';
import { NodeConnection, remoteReplica } from './remote-replica.js';
import { Prepares } from './prepares.js';
import { Scheduler } from './scheduler.js';
import type { SeededRandom } from './seeded-random.js';
import { SimulatedCoordinator } from './simulated-coordinator.js';
import { type PowerCut, SimulatedDisk } from './simulated-disk.js';
import { mount, unmountAll } from './simulated-files.js';
import { SimulatedProcess } from './simulated-process.js';
import { startStorage } from './storage-host.js';
import { durableCopy, durableProgress, missingFrom } from './store-inspection.js';

export interface WorldOptions {
  readonly random: SeededRandom;
  readonly stores: number;
  /** Further ones that may come later. */
  readonly spares: number;
  readonly zones: number;
  readonly frontEnds: number;
  readonly replicationFactor: number;
  readonly consistency: Consistency;
  readonly forks?: boolean;
  /** The chance of a world in which stores keep the updates of pushes; absent: the log has them. */
  readonly large?: SeededRandom | undefined;
  readonly log: ((line: string) => void) | undefined;
  /** Whoever takes no locks is overtaken. */
  readonly contended: boolean;
}

/** It takes so long to notice that a node does not answer. */
const noticedMs = 1_500;
/** A node has 0, 1, 2 requests running, each for so long. */
const loads = 3;
const loadMs = 700;
/** Started anew this long after it has ended, if nothing else is decided. */
const restartMs = 500;

/** Machines, network and coordinator of one simulated cluster, with the real code in its processes. */
export class World {
  readonly scheduler = new Scheduler();
  readonly random: SeededRandom;
  readonly network: Network;
  readonly coordinator: SimulatedCoordinator;
  readonly observer: CommitObserver;
  readonly history = new History();
  readonly stores: readonly StorageHost[];
  readonly frontEnds: readonly FrontEndHost[];
  readonly violations: string[] = [];
  /** How often what came to pass, so that a trouble which never comes is noticed. */
  readonly happened = new Map<string, number>();
  readonly flippedBits = new FlippedBits();
  readonly prepares = new Prepares();
  readonly #begunCopies = new BegunCopies(
    () => this.stores.map(({ disk }) => disk),
    (text) => this.violate(text),
  );
  /** Repositories that nobody needs at the end. */
  readonly mayBeDeleted = new Set<string>();
  /** Nodes of which somebody asked that they be removed. */
  readonly mayBeRemoved = new Set<string>();
  /** The coordinator comes back from a backup when all else is over. */
  restoredAtEnd = false;
  readonly names: NameObserver;
  /** Stores that were lost together, and what is made of that. */
  losses: Losses | undefined;
  /** Where pushes are too large for the log. */
  readonly largePushes: LargePushes | undefined;
  /** Clients make forks. */
  readonly forks: boolean;
  /** The one whose disk loses bits, in a world in which one does. */
  decaying: StorageHost | undefined;
  /** A disk may be lost without anything that was acknowledged. */
  mayLoseDisk: boolean;
  readonly #options: WorldOptions;
  readonly #log: ((line: string) => void) | undefined;
  readonly #processRandom: SeededRandom;

  constructor(options: WorldOptions) {
    const { random, stores, spares, zones, frontEnds, log } = options;
    unmountAll();
    this.#options = options;
    this.mayLoseDisk = options.replicationFactor > 1 && options.consistency !== 'eventual';
    this.random = random;
    this.forks = options.forks ?? false;
    this.largePushes = options.large && new LargePushes(this, options.large);
    this.#log = log;
    const { scheduler } = this;
    this.#processRandom = random.fork('processes');
    this.network = new Network(scheduler, random.fork('network'));
    this.observer = new CommitObserver({
      nowMs: () => scheduler.nowMs,
      violation: (text) => this.violate(text),
      keptUpdates: (kept) => keptUpdates(this, kept),
      committed: (entry, configuration, before) => {
        checkPrepared(this, entry, configuration);
        if (entry.after !== undefined) this.#checkOverruled(entry, before);
      },
      born: (id, birth) => this.#checkBorn(id, birth),
      revoted: (id, before, after) => this.#checkVoters(id, before, after),
      trimmed: (id, generation, configuration) => this.#checkTrimmed(id, generation, configuration),
    });
    this.names = new NameObserver({
      nowMs: () => scheduler.nowMs,
      violation: (text) => this.violate(text),
      reused: () => this.count('names that another repository got'),
    });
    this.coordinator = new SimulatedCoordinator({
      scheduler,
      network: this.network,
      random: random.fork('coordinator'),
      onBatch: (batch) => {
        this.observer.see(batch);
        this.names.see(batch);
        for (const event of batch.events) {
          const gone = event.type === 'delete' && event.key.startsWith(keys.pools);
          if (gone) this.count('pools given up');
        }
      },
      happened: (what) => this.count(what),
    });
    const host = (name: string): Host => {
      const clock = {
        skewMs: random.between(-3_600_000, 3_600_000),
        rate: random.between(0.98, 1.02),
      };
      return { name, disk: this.#newDisk(clock), ...clock, boots: 0, process: undefined };
    };
    this.stores = Array.from({ length: stores + spares }, (_, i) => ({
      ...host(`store-${i + 1}`),
      kind: 'store',
      storeId: undefined,
      replica: undefined,
      source: undefined,
      lastSeenMs: 0,
      zone: `zone-${i % zones}`,
      presence: i < stores ? 'here' : 'spare',
    }));
    this.frontEnds = Array.from({ length: frontEnds }, (_, i) => ({
      ...host(`front-end-${i + 1}`),
      kind: 'front-end',
      frontEnd: undefined,
    }));
    for (const what of expected) this.expect(what);
    this.#tick();
  }

  /** What was decided about a node: `draining` or `removed`. */
  markOf({ name }: StorageHost): string | undefined {
    const stored = this.coordinator.state.get(keys.nodeMark(name));
    if (stored === undefined) return undefined;
    return textOf(recordOf(JSON.parse(Buffer.from(stored.value).toString('utf8')))['mark']);
  }

  get replicationFactor(): number {
    return this.#options.replicationFactor;
  }

  get consistency(): Consistency {
    return this.#options.consistency;
  }

  get places(): readonly string[] {
    return [...this.stores, ...this.frontEnds].map(({ name }) => name);
  }

  violate(text: string): void {
    this.say(`VIOLATION ${text}`);
    if (this.violations.length < 20) this.violations.push(text);
  }

  say(text: string): void {
    this.#log?.(`${this.scheduler.nowMs.toFixed(3).padStart(11)} ${text}`);
  }

  count(what: string): void {
    this.happened.set(what, (this.happened.get(what) ?? 0) + 1);
  }

  /** It has to come about in some seed: counted from 0 on, so that a run in which it never does is noticed. */
  expect(what: string): void {
    if (!this.happened.has(what)) this.happened.set(what, 0);
  }

  /** Some of what a host has of a repository is damaged, by nobody's fault but the disk's. */
  isDamaged({ disk }: StorageHost, repositoryId: string): boolean {
    return this.flippedBits.left({ disk, repositoryId }).length > 0;
  }

  startStore(host: StorageHost): void {
    if (host.process?.alive === true || host.presence !== 'here') return;
    void this.#openStore(host, this.#boot(host));
  }

  startFrontEnd(host: FrontEndHost): void {
    if (host.process?.alive === true) return;
    void this.#openFrontEnd(host, this.#boot(host));
  }

  /** `cut` absent: the process is killed, and the disk keeps what was written. */
  crashStore(host: StorageHost, cut?: PowerCut): void {
    if (host.process?.alive !== true) return;
    this.say(`${host.name} crashes${cut === undefined ? '' : `, losing ${cut}`}`);
    host.process.die();
    host.replica = undefined;
    host.source = undefined;
    host.lastSeenMs = this.scheduler.nowMs;
    this.count(cut === undefined ? 'stores killed' : `power cuts that lose ${cut}`);
    if (cut !== undefined) host.disk.cutPower(this.random, cut);
  }

  crashFrontEnd(host: FrontEndHost): void {
    if (host.process?.alive !== true) return;
    this.say(`${host.name} crashes`);
    host.process.die();
    host.frontEnd = undefined;
  }

  /** Without loss of what was written. */
  crash(host: StorageHost | FrontEndHost): void {
    if (host.kind === 'store') this.crashStore(host);
    else this.crashFrontEnd(host);
  }

  /** Nothing of it is to be heard of any more. */
  end(): void {
    for (const { process } of [...this.stores, ...this.frontEnds]) process?.die();
  }

  restartLater(host: StorageHost | FrontEndHost, ms: number): void {
    this.scheduler.after(ms, () => {
      if (host.kind === 'store') this.startStore(host);
      else this.startFrontEnd(host);
    });
  }

  /** The disk is gone, with everything on it; the machine gets an empty one. */
  wipe(host: StorageHost): void {
    this.say(`${host.name} loses its disk`);
    this.crashStore(host);
    host.disk = this.#newDisk(host);
    host.storeId = undefined;
  }

  /** Files have the times of their machine's clock. */
  #newDisk({ skewMs, rate }: Pick<Host, 'skewMs' | 'rate'>): SimulatedDisk {
    return new SimulatedDisk(
      () => 1_700_000_000_000 + skewMs + this.scheduler.nowMs * rate,
      (disk, path) => this.#begunCopies.made(disk, path),
    );
  }

  /** Runs until `done`; true when it came to be within this long. */
  async until(done: () => boolean, withinMs: number, maxSteps: number): Promise<boolean> {
    const endMs = this.scheduler.nowMs + withinMs;
    await this.scheduler.run(() => done() || this.scheduler.nowMs >= endMs, maxSteps);
    return done();
  }

  /** What a promise comes to within this long; undefined when it does not. */
  async settled<T>(
    promise: Promise<T>,
    withinMs: number,
    maxSteps: number,
  ): Promise<T | undefined> {
    let outcome: { value: T } | undefined;
    let failure: { error: unknown } | undefined;
    const wait = async (): Promise<void> => {
      try {
        outcome = { value: await promise };
      } catch (error) {
        failure = { error };
      }
    };
    void wait();
    await this.until(() => outcome !== undefined || failure !== undefined, withinMs, maxSteps);
    if (failure !== undefined) throw failure.error;
    return outcome?.value;
  }

  #boot(host: Host): SimulatedProcess {
    host.boots++;
    this.say(`${host.name} starts`);
    const process = new SimulatedProcess({
      name: host.name,
      boot: host.boots,
      scheduler: this.scheduler,
      random: this.#processRandom.fork(host.name),
      skewMs: host.skewMs,
      rate: host.rate,
      log: this.#log,
      happened: (what) => this.count(what),
    });
    host.process = process;
    mount(rootOf(host).slice(1), { disk: host.disk, process });
    return process;
  }

  async #openStore(host: StorageHost, process: SimulatedProcess): Promise<void> {
    try {
      await startStorage({
        process,
        coordinator: this.coordinator.client(process),
        connect: (to) => this.#connect(process, to),
        root: rootOf(host),
        zone: host.zone,
        disk: host.disk,
        opened: (replica, source) => {
          if (!process.alive) return;
          host.replica = replica;
          host.source = source;
          host.storeId = replica.storeId;
        },
      });
    } catch (error) {
      this.#startFailed(host, process, error);
    }
  }

  async #openFrontEnd(host: FrontEndHost, process: SimulatedProcess): Promise<void> {
    try {
      const frontEnd = await startFrontEnd({
        ...this.#options,
        process,
        coordinator: this.coordinator.client(process),
        connect: (to) => this.#connect(process, to),
        root: rootOf(host),
        maxInlineUpdatesBytes: this.largePushes?.maxInlineUpdatesBytes,
      });
      if (process.alive) host.frontEnd = frontEnd;
    } catch (error) {
      this.#startFailed(host, process, error);
    }
  }

  #startFailed(host: StorageHost | FrontEndHost, process: SimulatedProcess, error: unknown): void {
    if (!process.alive) return;
    process.logger.error({ err: error }, 'the process could not start');
    process.die();
    this.restartLater(host, restartMs);
  }

  /** What `backends/node` makes of a node's record: a way there, which is known to work or not. */
  #connect(
    caller: SimulatedProcess,
    { storeId, address }: { readonly storeId: string; readonly address: string },
  ): ReturnType<NodeDirectoryDependencies['connect']> {
    const host = this.stores.find(({ name }) => name === address);
    const connection = new NodeConnection({
      network: this.network,
      caller,
      nodeName: address,
      storeId,
      node: () =>
        host?.process === undefined
          ? undefined
          : {
              process: host.process,
              replica: host.replica,
              source: host.source,
              hangs: this.stores.some(({ disk }) => disk.hang !== undefined),
            },
      happened: (what) => this.count(what),
      shown: (...read) => host && this.#begunCopies.shown(host, ...read),
    });
    const { scheduler } = this;
    const noted = this.prepares.noting(remoteReplica(storeId, connection));
    const remote = (host && this.largePushes?.troubling(noted, { caller, host })) ?? noted;
    const phase = caller.random.below(loads);
    return {
      replica: {
        ...remote,
        read: async (id, ...wanted) => {
          const read = await remote.read(id, ...wanted);
          const { readers } = this.observer.configurations.get(id) ?? {};
          if (readers?.has(storeId) === true) this.count('reads from readers');
          return read;
        },
      },
      get reachable() {
        if (host === undefined) return false;
        return host.replica !== undefined || scheduler.nowMs - host.lastSeenMs < noticedMs;
      },
      refused: false,
      // Comes and goes, so that every copy is the best one at some time.
      get running() {
        return (Math.floor(scheduler.nowMs / loadMs) + phase) % loads;
      },
      asked: Promise.resolve(),
      close: () => Promise.resolve(),
    };
  }

  /** Only who goes on with what is left of a set that has lost its majority says that something does not count. */
  #checkOverruled(entry: ObservedEntry, before: ObservedConfiguration): void {
    if (this.losses?.concerns(entry.repositoryId) === true) this.losses.check(entry, before);
    else this.violate(`entry ${entry.generation} overrules what follows ${entry.after}`);
  }

  /** From the moment at which it is there it is on all of its stores, for certain. */
  #checkBorn(id: string, { generation, configuration: { voters, name } }: Birth): void {
    if (generation > 0) this.count('forks made');
    for (const storeId of voters.keys()) {
      const host = this.stores.find((one) => one.storeId === storeId);
      // It may have lost bits before it was there.
      if (host === undefined || this.isDamaged(host, id)) continue;
      const copy = durableCopy(host.disk, id);
      const missing = missingFrom(copy.objects, copy.refs.values());
      if (copy.generation === generation && missing.length === 0) continue;
      this.violate(`${name} is at ${copy.generation} on ${host.name}, without ${missing.join()}`);
    }
  }

  #checkTrimmed(id: string, generation: number, { voters }: ObservedConfiguration): void {
    for (const [storeId, state] of voters) {
      if (state === 'stale') continue;
      const host = this.stores.find((one) => one.storeId === storeId);
      if (host === undefined || this.isDamaged(host, id)) continue;
      const copy = durableProgress(host.disk, id);
      if (copy.recoverable < generation) {
        this.violate(`entry ${generation} was trimmed, and ${host.name} is at ${copy.generation}`);
      }
    }
  }

  /** Whoever becomes a voter has everything for certain; whoever is left has it on a majority. */
  #checkVoters(
    id: string,
    { voters: before }: ObservedConfiguration,
    { voters: after, learners }: ObservedConfiguration,
  ): void {
    if (this.losses?.concerns(id) === true && after.size === 1) return;
    const head = this.observer.newest(id);
    const added = [...after.keys()].filter((storeId) => !before.has(storeId));
    const removed = [...before.keys()].filter((storeId) => !after.has(storeId));
    // Whose copy was found damaged makes room for another in one step, and learns again.
    const relieved = removed.filter((storeId) => {
      const host = this.stores.find((one) => one.storeId === storeId);
      const reported = this.coordinator.state.get(keys.damage(id, storeId)) !== undefined;
      return learners.has(storeId) && (reported || host === undefined || this.isDamaged(host, id));
    });
    if (relieved.length > 0) this.count('damaged voters replaced in one step');
    if (added.length > 1 || removed.length > (added.length === 0 ? 1 : relieved.length)) {
      this.violate('more than one voter changed at a time');
    }
    const current = [...after.keys()].filter((storeId) => {
      const host = this.stores.find((one) => one.storeId === storeId);
      if (host === undefined) return false;
      const { recoverable, objects, refs } = durableCopy(host.disk, id);
      const missing = recoverable < head ? [] : missingFrom(objects, refs.values());
      const whole = recoverable >= head && missing.length === 0;
      // It may have lost bits a moment ago.
      if (this.isDamaged(host, id)) return true;
      if (added.includes(storeId) && !whole) {
        this.violate(
          `${host.name} became a voter at ${recoverable} of ${head}, without ${missing.join()}`,
        );
      }
      return recoverable >= head;
    });
    if (current.length < Math.floor(after.size / 2) + 1) {
      this.violate(`of ${after.size} voters only ${current.length} have generation ${head}`);
    }
  }

  /** Leases end although nobody asks. */
  #tick(): void {
    this.scheduler.after(250, () => {
      this.coordinator.decide(() => undefined);
      this.#tick();
    });
  }
}

/** Where a host's disk is mounted in its present life: an absolute path, as some of the code makes one of any. */
function rootOf({ name, boots }: Host): string {
  return `/${name}.${boots}`;
}
