import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { pickPort } from '../../../contract/testing/ports.js';
import { EtcdMember, type EtcdTls, type MemberPlace } from './etcd-member.js';

export { EtcdMember, type EtcdTls } from './etcd-member.js';

/** An address that etcd can listen on, and a command that runs others there. */
export interface Machine {
  readonly address: string;
  readonly enter: readonly string[];
}

export interface EtcdClusterOptions {
  /** Default 1. */
  readonly members?: number;
  /** Made if absent, and kept; default a temporary one, which `stop` removes. */
  readonly directory?: string;
  /** Where each member runs, in order; its ports have to be given then. Default 127.0.0.1. */
  readonly machines?: readonly (Machine | undefined)[];
  /** Client ports in order. Default free ones. */
  readonly clientPorts?: readonly number[];
  /** Ports for each other in order, and for health. Default free ones. Members keep theirs with their data. */
  readonly peerPorts?: readonly number[];
  readonly healthPorts?: readonly number[];
  /** Default false. True: the terminal's Ctrl-C does not reach them; `stop` has to. */
  readonly detached?: boolean;
  /** Default 100, etcd's own. */
  readonly heartbeatMs?: number;
  /** Default 1,000, etcd's own. */
  readonly electionMs?: number;
  readonly tls?: EtcdTls;
  readonly extraArguments?: readonly string[];
}

/** A start takes half a second; this is for a machine that has a lot else to do. */
const startTimeoutMs = 120_000;

/**
 * Real etcd members (Debian's `etcd-server`, and `etcd-client` for snapshots) as child processes on loopback, for
 * tests and for a cluster on one machine.
 */
export class EtcdCluster {
  readonly members: readonly EtcdMember[];
  readonly directory: string;
  readonly #options: EtcdClusterOptions;
  readonly #initialCluster: string;
  readonly #token: string;

  private constructor(
    directory: string,
    options: EtcdClusterOptions,
    places: readonly MemberPlace[],
  ) {
    this.directory = directory;
    this.#options = options;
    this.#token = `quorate-${randomInt(2 ** 47)}`;
    this.#initialCluster = places
      .map(({ name, host, peerPort }) => `${name}=http://${host}:${peerPort}`)
      .join(',');
    this.members = places.map(
      (place) =>
        new EtcdMember(place, {
          initialCluster: this.#initialCluster,
          token: this.#token,
          heartbeatMs: options.heartbeatMs ?? 100,
          electionMs: options.electionMs ?? 1_000,
          tls: options.tls,
          detached: options.detached ?? false,
          extraArguments: options.extraArguments ?? [],
        }),
    );
  }

  /** Starts the members and waits until all of them serve. */
  static async start(options: EtcdClusterOptions = {}): Promise<EtcdCluster> {
    const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'quorate-etcd-')));
    const cluster = new EtcdCluster(directory, options, await choosePlaces(directory, options));
    try {
      for (const member of cluster.members) member.start();
      await cluster.ready();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  /** `HOST:PORT` of every member, for clients. */
  get endpoints(): readonly string[] {
    return this.members.map(({ endpoint }) => endpoint);
  }

  /** For `quorate serve --coordinator`. */
  get url(): string {
    return `etcd://${this.endpoints.join(',')}`;
  }

  /** Resolves when every running member serves. */
  async ready(timeoutMs = startTimeoutMs): Promise<void> {
    await this.#until('etcd to serve', timeoutMs, async () => {
      const failed = this.members.find((member) => !member.running && member.log !== '');
      if (failed !== undefined) throw new Error(`${failed.name} ended: ${failed.log}`);
      const running = this.members.filter(({ running }) => running);
      const healthy = await Promise.all(running.map((member) => member.healthy()));
      return healthy.every(Boolean) ? true : undefined;
    });
  }

  member(index: number): EtcdMember {
    const member = this.members[index];
    if (member === undefined) throw new RangeError(`there is no etcd member ${index}`);
    return member;
  }

  /** The member that leads, waited for. */
  leader(timeoutMs = startTimeoutMs): Promise<EtcdMember> {
    return this.#until('an etcd leader', timeoutMs, async () => {
      const leads = await Promise.all(this.members.map((member) => member.leads()));
      return this.members[leads.indexOf(true)];
    });
  }

  /** Kills the leader and returns it; `start` brings it back. */
  async killLeader(): Promise<EtcdMember> {
    const leader = await this.leader();
    await leader.kill();
    return leader;
  }

  /** Removes the history up to the present revision, as `etcdctl compact` does. */
  async compact(): Promise<void> {
    const revision = await this.#status('revision');
    await this.#etcdctl([...this.#endpointArguments(), 'compact', String(revision)]);
  }

  /** Raft's term: each election, also one without a winner, adds one. */
  term(): Promise<number> {
    return this.#status('raft_term');
  }

  /** Switches authentication on: `root` with the password `root`, and users who may read and write below a prefix. */
  async enableUsers(
    users: readonly { readonly name: string; readonly password: string; readonly prefix: string }[],
  ): Promise<void> {
    const run = (...args: readonly string[]): Promise<unknown> =>
      this.#etcdctl([...this.#endpointArguments(), ...args]);
    await run('user', 'add', 'root:root');
    await run('user', 'grant-role', 'root', 'root');
    for (const { name, password, prefix } of users) {
      await run('role', 'add', name);
      await run('role', 'grant-permission', name, 'readwrite', '--prefix=true', prefix);
      await run('user', 'add', `${name}:${password}`);
      await run('user', 'grant-role', name, name);
    }
    await run('auth', 'enable');
  }

  /** Saves the store as an operator would: `etcdctl snapshot save`. */
  async snapshot(file: string): Promise<void> {
    await this.#etcdctl([...this.#endpointArguments(), 'snapshot', 'save', file]);
  }

  /**
   * Stops all members, and starts them on the snapshot instead of their data, on the same ports. With the same token
   * (the default) the cluster keeps its id, as it does for an operator who changes nothing else.
   */
  async restore(file: string, token = this.#token): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    for (const { place, name, peerUrl } of this.members) {
      const restored = `${place.dataDirectory}.restored`;
      await this.#etcdctl([
        'snapshot',
        'restore',
        file,
        `--name=${name}`,
        `--data-dir=${restored}`,
        `--initial-cluster=${this.#initialCluster}`,
        `--initial-cluster-token=${token}`,
        `--initial-advertise-peer-urls=${peerUrl}`,
      ]);
      await rm(place.dataDirectory, { recursive: true });
      await rename(restored, place.dataDirectory);
    }
    for (const member of this.members) member.start();
    await this.ready();
  }

  /**
   * Kills all members and removes the directory, unless it was given: what they acknowledged is on disk, and three that
   * are asked to stop at once spend five seconds on handing over the lead. Idempotent.
   */
  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    if (this.#options.directory !== undefined) return;
    await rm(this.directory, { recursive: true, force: true });
  }

  async #status(name: 'revision' | 'raft_term'): Promise<number> {
    const { stdout } = await this.#etcdctl([
      ...this.#endpointArguments(),
      'endpoint',
      'status',
      '--write-out=json',
    ]);
    const value = new RegExp(`"${name}":\\s*(\\d+)`).exec(stdout)?.[1];
    if (value === undefined) throw new Error(`etcdctl told no ${name}: ${stdout}`);
    return Number(value);
  }

  #endpointArguments(): readonly string[] {
    const member = this.members.find(({ running }) => running);
    if (member === undefined) throw new Error('no etcd member runs');
    return ['--endpoints', member.clientUrl];
  }

  async #etcdctl(args: readonly string[]): Promise<{ stdout: string }> {
    const { tls } = this.#options;
    const flags =
      tls === undefined
        ? []
        : ['--cacert', tls.caFile, '--cert', tls.certFile, '--key', tls.keyFile];
    return promisify(execFile)('etcdctl', [...flags, ...args], {
      env: { ...process.env, ETCDCTL_API: '3' },
      timeout: startTimeoutMs,
    });
  }

  async #until<T>(
    what: string,
    timeoutMs: number,
    probe: () => Promise<T | undefined>,
  ): Promise<T> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const found = await probe();
      if (found !== undefined) return found;
      if (performance.now() > deadlineMs) {
        const logs = this.members.map(({ name, log }) => `${name}: ${log.slice(-500)}`).join('\n');
        throw new Error(`waited ${timeoutMs} ms for ${what}\n${logs}`);
      }
      await sleep(20);
    }
  }
}

async function choosePlaces(
  directory: string,
  options: EtcdClusterOptions,
): Promise<readonly MemberPlace[]> {
  const places: MemberPlace[] = [];
  for (let i = 0; i < (options.members ?? 1); i += 1) {
    const name = `etcd-${i + 1}`;
    const machine = options.machines?.[i];
    const host = machine?.address ?? '127.0.0.1';
    places.push({
      name,
      host,
      clientPort: options.clientPorts?.[i] ?? (await pickPort()),
      peerPort: options.peerPorts?.[i] ?? (await pickPort()),
      healthPort: options.healthPorts?.[i] ?? (await pickPort()),
      dataDirectory: join(directory, name),
      ...(machine === undefined ? {} : { enter: machine.enter }),
    });
  }
  return places;
}
