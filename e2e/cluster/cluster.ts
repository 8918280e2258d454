import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { EtcdCluster, type EtcdTls } from '../etcd.js';
import { MemberProcess } from './member-process.js';
import { claimPorts, type ClusterPorts } from './cluster-ports.js';
import type { Host } from './hosts.js';

export interface ClusterOptions {
  /** Holds everything: etcd's data, the members' data directories, the secret. Made if absent, and kept. */
  readonly directory: string;
  /** Default 3. */
  readonly storageNodes?: number;
  /** Default 2. */
  readonly frontEnds?: number;
  /** Default 3. */
  readonly etcdMembers?: number;
  /** First of a block of ports; default a free block, and the same again on a directory that was used. */
  readonly basePort?: number;
  /** Where `etcd-1`, `storage-1`, `front-end-1`, ... run. Default: all on loopback. */
  readonly hostOf?: (member: string) => Host | undefined;
  /** A member's data directory; default below `directory`. */
  readonly dataDirectoryOf?: (member: string) => string | undefined;
  /** Environment of the members. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * Election timeout of etcd, whose tenth is the heartbeat. Default etcd's own, 1,000, which a busy machine keeps;
   * docs/operations.md recommends 500.
   */
  readonly etcdElectionMs?: number;
  /** etcd speaks TLS, and asks clients for a certificate. The members have to be told by flags. */
  readonly etcdTls?: EtcdTls;
  /** Called when etcd serves, before anybody uses it. */
  readonly etcdReady?: (etcd: EtcdCluster) => Promise<void>;
  /** Default true. False: the members know each other by what the flags say. */
  readonly sharedSecret?: boolean;
  /** Further flags of `quorate serve`, for both kinds and for each. */
  readonly flags?: readonly string[];
  readonly storageFlags?: readonly string[];
  readonly frontEndFlags?: readonly string[];
  /** True: a Ctrl-C in the terminal reaches nobody but whoever calls `stop`. Default false. */
  readonly detached?: boolean;
}

/** What `npm run cluster -- --json` writes. */
export interface ClusterDescription {
  readonly etcd: readonly { readonly pid: number; readonly url: string }[];
  readonly storage: readonly {
    readonly id: string;
    readonly pid: number;
    /** The node API, for members. */
    readonly url: string;
    readonly ops: string;
  }[];
  readonly frontEnds: readonly {
    readonly pid: number;
    readonly http: string;
    readonly ssh: string;
    readonly ops: string;
  }[];
  readonly adminToken: string;
}

/** A whole cluster on loopback: real etcd members, storage nodes, front-ends, each a process of its own. */
export class Cluster {
  readonly etcd: EtcdCluster;
  readonly storage: readonly MemberProcess[];
  readonly frontEnds: readonly MemberProcess[];

  private constructor(
    etcd: EtcdCluster,
    storage: readonly MemberProcess[],
    frontEnds: readonly MemberProcess[],
  ) {
    this.etcd = etcd;
    this.storage = storage;
    this.frontEnds = frontEnds;
  }

  /** Starts all of it and waits until all of it serves. Nothing runs on when that fails. */
  static async start(options: ClusterOptions): Promise<Cluster> {
    const { directory, detached = false } = options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const counts = {
      etcd: options.etcdMembers ?? 3,
      storage: options.storageNodes ?? 3,
      frontEnds: options.frontEnds ?? 2,
    };
    const ports = await claimPorts(directory, counts, options.basePort);
    const { hostOf } = options;
    const etcd = await EtcdCluster.start({
      members: counts.etcd,
      ...(hostOf === undefined
        ? {}
        : { machines: ports.etcdClients.map((_, index) => hostOf(`etcd-${index + 1}`)) }),
      directory: path.join(directory, 'etcd'),
      clientPorts: ports.etcdClients,
      peerPorts: ports.etcdPeers,
      healthPorts: ports.etcdHealth,
      detached,
      ...(options.etcdElectionMs === undefined
        ? {}
        : { electionMs: options.etcdElectionMs, heartbeatMs: options.etcdElectionMs / 10 }),
      ...(options.etcdTls === undefined ? {} : { tls: options.etcdTls }),
    });
    await options.etcdReady?.(etcd);
    const secretFile = await makeSecret(directory);
    // As many copies as there can be.
    const copies = Math.min(3, counts.storage);
    const common = [
      `--set=replication.factor=${copies}`,
      '--coordinator',
      etcd.url,
      ...(options.sharedSecret === false ? [] : ['--cluster-secret-file', secretFile]),
    ];
    const storage = ports.nodes.map((_, index) => storageNode({ options, common, ports, index }));
    const frontEnds = ports.http.map((_, index) => frontEnd({ options, common, ports, index }));
    const cluster = new Cluster(etcd, storage, frontEnds);
    try {
      for (const member of storage) member.start();
      await Promise.all(storage.map((member) => member.ready()));
      for (const member of frontEnds) member.start();
      await Promise.all(frontEnds.map((member) => member.ready()));
      return cluster;
    } catch (error) {
      await cluster.kill();
      throw error;
    }
  }

  storageNode(index: number): MemberProcess {
    return at(this.storage, index);
  }

  frontEnd(index: number): MemberProcess {
    return at(this.frontEnds, index);
  }

  /** The token of `admin` that the first front-end made. */
  async adminToken(): Promise<string> {
    const file = path.join(this.frontEnd(0).dataDirectory, 'admin-token');
    return (await readFile(file, 'utf8')).trim();
  }

  async describe(): Promise<ClusterDescription> {
    return {
      etcd: this.etcd.members.map(({ pid = 0, clientUrl }) => ({ pid, url: clientUrl })),
      storage: this.storage.map((member) => ({
        id: member.fact('nodeId'),
        pid: member.pid,
        url: `http://${member.fact('address')}`,
        ops: member.fact('opsUrl'),
      })),
      frontEnds: this.frontEnds.map((member) => ({
        pid: member.pid,
        http: member.fact('httpUrl'),
        ssh: member.fact('sshUrl'),
        ops: member.fact('opsUrl'),
      })),
      adminToken: await this.adminToken(),
    };
  }

  /** Drains the front-ends, then the storage nodes, then ends etcd. */
  async stop(): Promise<void> {
    await Promise.all(this.frontEnds.map((member) => member.stop()));
    await Promise.all(this.storage.map((member) => member.stop()));
    await this.etcd.stop();
  }

  /** Ends all of it at once. */
  async kill(): Promise<void> {
    await Promise.all([...this.frontEnds, ...this.storage].map((member) => member.kill()));
    await this.etcd.stop();
  }
}

interface MemberOptions {
  readonly options: ClusterOptions;
  readonly common: readonly string[];
  readonly ports: ClusterPorts;
  readonly index: number;
}

function storageNode({ options, common, ports, index }: MemberOptions): MemberProcess {
  const name = `storage-${index + 1}`;
  const { address, enter } = placeOf(options, name);
  return new MemberProcess({
    name,
    dataDirectory: options.dataDirectoryOf?.(name) ?? path.join(options.directory, name),
    readyFile: 'node.json',
    env: options.env,
    enter,
    detached: options.detached ?? false,
    flags: [
      '--role=storage',
      `--node-id=${name}`,
      `--zone=zone-${index + 1}`,
      `--node=${address}:${at(ports.nodes, index)}`,
      `--ops=${address}:${at(ports.nodeOps, index)}`,
      ...common,
      ...(options.flags ?? []),
      ...(options.storageFlags ?? []),
    ],
  });
}

function frontEnd({ options, common, ports, index }: MemberOptions): MemberProcess {
  const name = `front-end-${index + 1}`;
  const { address, enter } = placeOf(options, name);
  return new MemberProcess({
    name,
    dataDirectory: options.dataDirectoryOf?.(name) ?? path.join(options.directory, name),
    readyFile: 'server.json',
    env: options.env,
    enter,
    detached: options.detached ?? false,
    flags: [
      '--role=front-end',
      `--node-id=${name}`,
      `--http=${address}:${at(ports.http, index)}`,
      `--ssh=${address}:${at(ports.ssh, index)}`,
      `--ops=${address}:${at(ports.ops, index)}`,
      ...common,
      ...(options.flags ?? []),
      ...(options.frontEndFlags ?? []),
    ],
  });
}

/** Loopback unless the cluster has hosts. */
function placeOf({ hostOf }: ClusterOptions, member: string): Omit<Host, 'name'> {
  return hostOf?.(member) ?? { address: '127.0.0.1', enter: [] };
}

async function makeSecret(directory: string): Promise<string> {
  const file = path.join(directory, 'cluster-secret');
  const secret = `${randomBytes(32).toString('hex')}\n`;
  await writeFile(file, secret, { mode: 0o600, flag: 'wx' }).catch((error: unknown) => {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  });
  return file;
}

function at<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new RangeError(`there is no member ${index}`);
  return found;
}
