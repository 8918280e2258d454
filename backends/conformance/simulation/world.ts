import { Ring } from '../../replicated/placement.js';
import type { Consistency } from '../../replicated/quorum.js';
import type { ReplicaDirectory, StorageNode } from '../../replicated/voters.js';
import type { LocalReplica } from '../../local/local-replica.js';
import {
  CommitObserver,
  type ObservedConfiguration,
  type ObservedEntry,
} from './commit-observer.js';
import { type FrontEnd, startFrontEnd } from './front-end-host.js';
import { History } from './history.js';
import { Network } from './network.js';
import { zeroOid } from './pack-model.js';
import { NodeConnection, remoteReplica } from './remote-replica.js';
import { Scheduler } from './scheduler.js';
import type { SeededRandom } from './seeded-random.js';
import { SimulatedCoordinator } from './simulated-coordinator.js';
import { type PowerCut, SimulatedDisk } from './simulated-disk.js';
import { mount, unmountAll } from './simulated-files.js';
import { SimulatedProcess } from './simulated-process.js';
import { startStorage } from './storage-host.js';
import { durableCopy, missingFrom } from './store-inspection.js';

interface Host {
  readonly name: string;
  readonly skewMs: number;
  readonly rate: number;
  boots: number;
  process: SimulatedProcess | undefined;
}

export interface StorageHost extends Host {
  readonly disk: SimulatedDisk;
  /** Known once it has run. */
  storeId: string | undefined;
  replica: LocalReplica | undefined;
  /** When it was last known to run. */
  lastSeenMs: number;
}

export interface FrontEndHost extends Host {
  frontEnd: FrontEnd | undefined;
}

export interface WorldOptions {
  readonly random: SeededRandom;
  readonly stores: number;
  readonly frontEnds: number;
  readonly replicationFactor: number;
  readonly consistency: Consistency;
  readonly log: ((line: string) => void) | undefined;
}

const nodeLeaseMs = 10_000;
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
  readonly #options: WorldOptions;
  readonly #log: ((line: string) => void) | undefined;
  readonly #processRandom: SeededRandom;

  constructor(options: WorldOptions) {
    const { random, stores, frontEnds, log } = options;
    unmountAll();
    this.#options = options;
    this.random = random;
    this.#log = log;
    const { scheduler } = this;
    this.#processRandom = random.fork('processes');
    this.network = new Network(scheduler, random.fork('network'));
    this.observer = new CommitObserver({
      nowMs: () => scheduler.nowMs,
      violation: (text) => this.violate(text),
      committed: (entry, configuration) => this.#checkPrepared(entry, configuration),
      trimmed: (id, generation, configuration) => this.#checkTrimmed(id, generation, configuration),
    });
    this.coordinator = new SimulatedCoordinator({
      scheduler,
      network: this.network,
      random: random.fork('coordinator'),
      onBatch: (batch) => this.observer.see(batch),
    });
    const host = (name: string): Host => ({
      name,
      skewMs: random.between(-3_600_000, 3_600_000),
      rate: random.between(0.98, 1.02),
      boots: 0,
      process: undefined,
    });
    this.stores = Array.from({ length: stores }, (_, i) => ({
      ...host(`store-${i + 1}`),
      disk: new SimulatedDisk(() => 1_700_000_000_000 + scheduler.nowMs),
      storeId: undefined,
      replica: undefined,
      lastSeenMs: 0,
    }));
    this.frontEnds = Array.from({ length: frontEnds }, (_, i) => ({
      ...host(`front-end-${i + 1}`),
      frontEnd: undefined,
    }));
    this.#tick();
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

  startStore(host: StorageHost): void {
    if (host.process?.alive === true) return;
    const process = this.#boot(host);
    const root = `${host.name}.${host.boots}`;
    mount(root, { disk: host.disk, process });
    void this.#openStore(host, process, root);
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
    host.lastSeenMs = this.scheduler.nowMs;
    if (cut !== undefined) host.disk.cutPower(this.random, cut);
  }

  crashFrontEnd(host: FrontEndHost): void {
    if (host.process?.alive !== true) return;
    this.say(`${host.name} crashes`);
    host.process.die();
    host.frontEnd = undefined;
  }

  restartLater(host: StorageHost | FrontEndHost, ms: number): void {
    this.scheduler.after(ms, () => {
      if ('disk' in host) this.startStore(host);
      else this.startFrontEnd(host);
    });
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
    });
    host.process = process;
    return process;
  }

  async #openStore(host: StorageHost, process: SimulatedProcess, root: string): Promise<void> {
    const coordinator = this.coordinator.client(process);
    try {
      const replicas = this.#directory(process);
      const replica = await startStorage({ process, coordinator, replicas, root });
      if (!process.alive) return;
      host.replica = replica;
      host.storeId = replica.storeId;
    } catch (error) {
      this.#startFailed(host, process, error);
    }
  }

  async #openFrontEnd(host: FrontEndHost, process: SimulatedProcess): Promise<void> {
    const coordinator = this.coordinator.client(process);
    try {
      const replicas = this.#directory(process);
      const { replicationFactor, consistency } = this.#options;
      const options = { replicationFactor, consistency };
      const frontEnd = await startFrontEnd({ process, coordinator, replicas, ...options });
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

  #directory(caller: SimulatedProcess): ReplicaDirectory {
    const connect = (host: StorageHost): NodeConnection =>
      new NodeConnection({
        network: this.network,
        caller,
        nodeName: host.name,
        node: () =>
          host.process === undefined ? undefined : { process: host.process, replica: host.replica },
      });
    const nodes = (): readonly StorageNode[] => this.stores.flatMap((host) => this.#nodeOf(host));
    return {
      nodes,
      place: (id, count) =>
        new Ring(nodes()).place(id, count).map(({ nodeId, storeId }) => ({ nodeId, storeId })),
      load: () => caller.random.below(3),
      find: (storeId) => {
        const host = this.stores.find((one) => one.storeId === storeId);
        if (host === undefined || this.#nodeOf(host).length === 0) return undefined;
        return remoteReplica(storeId, connect(host));
      },
    };
  }

  /** A node is known until its lease has run out. */
  #nodeOf({ name, storeId, replica, lastSeenMs }: StorageHost): readonly StorageNode[] {
    const gone = replica === undefined && this.scheduler.nowMs - lastSeenMs > nodeLeaseMs;
    if (storeId === undefined || gone) return [];
    const node = { nodeId: name, storeId, address: name, zone: '', weight: 1 };
    const room = { capacityBytes: 1e12, usedBytes: 0 };
    return [{ ...node, ...room, draining: false, local: false }];
  }

  /** At the commit point, what was counted must be durable on the voters it was counted for. */
  #checkPrepared(entry: ObservedEntry, { voters }: ObservedConfiguration): void {
    const counted = new Set(entry.prepared.filter((storeId) => voters.includes(storeId)));
    const names = [...counted].map((id) => this.stores.find((one) => one.storeId === id)?.name);
    this.say(`${entry.pushId} is committed as ${entry.generation}, on ${names.join()}`);
    const needed = {
      eventual: 1,
      quorum: Math.floor(voters.length / 2) + 1,
      strong: voters.length,
    };
    if (counted.size < needed[this.#options.consistency]) {
      this.violate(`push ${entry.pushId} was committed with ${counted.size} of ${voters.length}`);
    }
    const tips = entry.updates.map(({ newOid }) => newOid).filter((oid) => oid !== zeroOid);
    for (const storeId of counted) {
      const host = this.stores.find((one) => one.storeId === storeId);
      if (host === undefined) continue;
      const { objects } = durableCopy(host.disk, entry.repositoryId, entry.pushId);
      const missing = missingFrom(objects, tips);
      if (missing.length === 0) continue;
      this.violate(`push ${entry.pushId} was committed, and ${host.name} lacks ${missing.join()}`);
    }
  }

  #checkTrimmed(id: string, generation: number, { voters }: ObservedConfiguration): void {
    for (const storeId of voters) {
      const host = this.stores.find((one) => one.storeId === storeId);
      if (host === undefined) continue;
      const copy = durableCopy(host.disk, id);
      if (copy.recoverable < generation) {
        this.violate(`entry ${generation} was trimmed, and ${host.name} is at ${copy.generation}`);
      }
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
