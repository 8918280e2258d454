import { readFile } from 'node:fs/promises';
import net from 'node:net';

/** Below it live programs with ports of their own. */
const firstPort = 10_000;
/** What Linux gives out by itself begins here unless it is told otherwise. */
const usualEphemeralStart = 32_768;
/** Test files run side by side, each in a process of its own: processes begin this far apart. */
const portsPerProcess = 48;

/** Every port that this process was given: a server that is down for a restart gets its own back. */
const given = new Set<number>();
let next: number | undefined;

/**
 * A loopback port on which nothing listens, below those that the system takes for outgoing connections: a server that
 * was stopped finds it free again. It is given to nobody else in this process, and other processes look elsewhere.
 */
export async function pickPort(): Promise<number> {
  const end = await ephemeralStart();
  const slots = Math.floor((end - firstPort) / portsPerProcess);
  next ??= firstPort + (process.pid % slots) * portsPerProcess;
  for (let tries = end - firstPort; tries > 0; tries -= 1) {
    const port = next;
    next = next + 1 < end ? next + 1 : firstPort;
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no port is free from ${firstPort} to ${end - 1}`);
}

async function ephemeralStart(): Promise<number> {
  const file = '/proc/sys/net/ipv4/ip_local_port_range';
  const text = await readFile(file, 'utf8').catch(() => '');
  const start = Number.parseInt(text, 10);
  // A machine that gives out nearly all ports has no better place than where Linux has none.
  return start >= 2 * firstPort ? start : usualEphemeralStart;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.createServer();
    probe.once('error', () => resolve(false));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () =>
      probe.close(() => resolve(true)),
    );
  });
}
