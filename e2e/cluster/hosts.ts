import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';

/** Where a process runs: its address, and the command that is handed the process' own command. */
export interface Host {
  readonly name: string;
  readonly address: string;
  readonly enter: readonly string[];
}

interface OwnHost extends Host {
  readonly namespace: string;
  /** Of its network card. */
  readonly mac: string;
}

/** Nobody has it: what is sent there is lost without a word, as on a cut line. */
const nobody = '02:51:ff:ff:ff:ff';
const card = 'eth0';
const marker = 'quorate-host';
/** Other runs on this machine have networks of their own: of 256, so many are tried. */
const maxAttempts = 50;

/**
 * Hosts on this machine: network namespaces on a switch of their own, which this process reaches too. Lines can be cut
 * one way or both ways, and made slow. `close` removes all of it once nothing runs there any more; what a killed run
 * left is removed by the next. Needs root, and Debian's `iproute2`.
 */
export class Hosts {
  readonly #hosts: readonly OwnHost[];
  readonly #switch: string;
  /** What the kernel has to make lines slow with. */
  readonly slowness: Slowness;

  private constructor(hosts: readonly OwnHost[], own: { switch: string; slowness: Slowness }) {
    this.#hosts = hosts;
    this.#switch = own.switch;
    this.slowness = own.slowness;
  }

  /** Throws when this process may not make them: tests that need hosts fail then, and are not skipped. */
  static async make(names: readonly string[]): Promise<Hosts> {
    if (process.getuid?.() !== 0) throw new Error('hosts are network namespaces: run this as root');
    await sweep();
    const prefix = `${marker}-${process.pid}-${Date.now() % 1e6}`;
    const hub = `${prefix}-switch`;
    const made: string[] = [];
    try {
      made.push(hub);
      await ip('netns', 'add', hub);
      const net = await joinSwitch(hub);
      const hosts = names.map((name, index) => ({
        name,
        namespace: `${prefix}-${name}`,
        address: `198.18.${net}.${index + 1}`,
        mac: macOf(net, index + 1),
        enter: ['nsenter', `--net=/run/netns/${prefix}-${name}`, '--'],
      }));
      for (const [index, host] of hosts.entries()) {
        made.push(host.namespace);
        await plugIn(hub, host, index + 1);
      }
      for (const host of hosts) {
        for (const peer of hosts) if (peer !== host) await pointTo(host, peer, peer.mac);
      }
      return new Hosts(hosts, { switch: hub, slowness: await probeSlowness(hub) });
    } catch (error) {
      for (const namespace of made) await ip('netns', 'delete', namespace).catch(() => undefined);
      throw error;
    }
  }

  host(name: string): Host {
    return this.#find(name);
  }

  /** From now on nothing that `from` sends reaches `to`. The other way stays as it is. */
  async cut(from: string, to: string): Promise<void> {
    await pointTo(this.#find(from), this.#find(to), nobody);
  }

  /** Nothing passes between one side and the other. Both stay reachable for this process. */
  async part(side: readonly string[], other = this.others(side)): Promise<void> {
    for (const one of side) {
      for (const peer of other) {
        await this.cut(one, peer);
        await this.cut(peer, one);
      }
    }
  }

  /** Nothing that they send reaches any other host, but they hear all. */
  async mute(names: readonly string[]): Promise<void> {
    for (const name of names) for (const peer of this.others([name])) await this.cut(name, peer);
  }

  /** They hear no other host, but are heard. */
  async deafen(names: readonly string[]): Promise<void> {
    for (const name of names) for (const peer of this.others([name])) await this.cut(peer, name);
  }

  /** What the host sends arrives late, and some of it not at all. */
  async slow(name: string): Promise<void> {
    const { namespace } = this.#find(name);
    await tc(
      '-n',
      namespace,
      'qdisc',
      'replace',
      'dev',
      card,
      'root',
      ...slownesses[this.slowness],
    );
  }

  /** All lines are whole and fast again. */
  async heal(): Promise<void> {
    for (const host of this.#hosts) {
      for (const peer of this.#hosts) if (peer !== host) await pointTo(host, peer, peer.mac);
      // There is none unless it was made slow.
      await tc('-n', host.namespace, 'qdisc', 'delete', 'dev', card, 'root').catch(() => undefined);
    }
  }

  others(names: readonly string[]): readonly string[] {
    return this.#hosts.map(({ name }) => name).filter((name) => !names.includes(name));
  }

  async close(): Promise<void> {
    // The cards go with their namespaces, and this process' own with its other end in the switch.
    for (const { namespace } of this.#hosts) await ip('netns', 'delete', namespace);
    await ip('netns', 'delete', this.#switch);
  }

  #find(name: string): OwnHost {
    const found = this.#hosts.find((host) => host.name === name);
    if (found === undefined) throw new RangeError(`there is no host ${name}`);
    return found;
  }
}

/** `netem` delays and loses; `tbf` only holds a line to a rate and drops what does not fit, which comes to the same. */
export type Slowness = 'netem' | 'tbf';

const slownesses: Readonly<Record<Slowness, readonly string[]>> = {
  netem: ['netem', 'delay', '60ms', '30ms', 'loss', '3%'],
  tbf: ['tbf', 'rate', '1mbit', 'burst', '4kb', 'limit', '12kb'],
};

async function probeSlowness(hub: string): Promise<Slowness> {
  const probe = ['-n', hub, 'qdisc', 'replace', 'dev', 'lo', 'root'];
  const possible = await tc(...probe, ...slownesses.netem).then(
    () => true,
    () => false,
  );
  if (possible) {
    await tc('-n', hub, 'qdisc', 'delete', 'dev', 'lo', 'root');
    return 'netem';
  }
  await tc(...probe, ...slownesses.tbf);
  console.error('THIS KERNEL HAS NO netem: delay and loss come from a narrow line (tbf) instead');
  return 'tbf';
}

/** Connects this process' own network to a switch, and returns the number of its network. */
async function joinSwitch(hub: string): Promise<number> {
  await ip('-n', hub, 'link', 'add', 'bridge', 'type', 'bridge');
  await ip('-n', hub, 'link', 'set', 'bridge', 'up');
  for (let attempt = 1; ; attempt += 1) {
    const net = Math.floor(Math.random() * 256);
    const own = `quorate${net}`;
    try {
      const end = ['type', 'veth', 'peer', 'name', own, 'netns', String(process.pid)];
      await ip('-n', hub, 'link', 'add', 'port0', ...end);
    } catch (error) {
      // Another run has this number.
      if (attempt === maxAttempts) throw error;
      continue;
    }
    await ip('-n', hub, 'link', 'set', 'port0', 'master', 'bridge', 'up');
    await ip('link', 'set', own, 'up');
    await ip('address', 'add', `198.18.${net}.254/24`, 'dev', own);
    return net;
  }
}

async function plugIn(hub: string, host: OwnHost, index: number): Promise<void> {
  const { namespace, address, mac } = host;
  const port = `port${index}`;
  await ip('netns', 'add', namespace);
  const end = ['type', 'veth', 'peer', 'name', card, 'address', mac, 'netns', namespace];
  await ip('-n', hub, 'link', 'add', port, ...end);
  await ip('-n', hub, 'link', 'set', port, 'master', 'bridge', 'up');
  await ip('-n', namespace, 'link', 'set', 'lo', 'up');
  await ip('-n', namespace, 'link', 'set', card, 'up');
  await ip('-n', namespace, 'address', 'add', `${address}/24`, 'dev', card);
}

/** Hosts know each other's cards and never ask, so that a card that is nobody's cuts the line. */
async function pointTo(from: OwnHost, to: OwnHost, mac: string): Promise<void> {
  const entry = [to.address, 'lladdr', mac, 'dev', card, 'nud', 'permanent'];
  await ip('-n', from.namespace, 'neighbour', 'replace', ...entry);
}

function macOf(net: number, index: number): string {
  const [a = '', b = ''] = [net, index].map((byte) => byte.toString(16).padStart(2, '0'));
  return `02:51:00:00:${a}:${b}`;
}

/** Removes what runs left that were killed. */
async function sweep(): Promise<void> {
  const listed = await ip('netns', 'list');
  for (const [namespace, pid] of listed.matchAll(new RegExp(`^${marker}-(\\d+)-\\S+`, 'gm'))) {
    if (!existsSync(`/proc/${pid}`)) await ip('netns', 'delete', namespace).catch(() => undefined);
  }
}

async function ip(...args: readonly string[]): Promise<string> {
  return (await promisify(execFile)('ip', args, { timeout: 30_000 })).stdout;
}

async function tc(...args: readonly string[]): Promise<string> {
  return (await promisify(execFile)('tc', args, { timeout: 30_000 })).stdout;
}
