import net from 'node:net';

/**
 * Below them live programs with ports of their own, above them what systems take for outgoing connections: a server or
 * a member of etcd that was stopped finds its port free again.
 */
const firstPort = 10_000;
const endPort = 32_000;
/** The first of a block is held by the process whose block it is. */
const blockSize = 50;

/** What is left of the block of this process. A port is given once: a server that is down gets its own back. */
let free: number[] = [];

/**
 * A loopback port on which nothing listens. It is given to nobody else, in this process or in others: test files run
 * side by side, each in a process of its own, and take blocks of ports.
 */
export async function pickPort(): Promise<number> {
  for (;;) {
    const port = free.shift();
    if (port === undefined) free = await claimBlock();
    else if (await isFree(port)) return port;
  }
}

async function claimBlock(): Promise<number[]> {
  const blocks = (endPort - firstPort) / blockSize;
  for (let tries = 0; tries < blocks; tries += 1) {
    const start = firstPort + ((process.pid + tries) % blocks) * blockSize;
    const holder = await listen(start);
    if (holder === undefined) continue;
    // Until this process ends.
    holder.unref();
    return Array.from({ length: blockSize - 1 }, (_, index) => start + 1 + index);
  }
  throw new Error(`no block of ports is free from ${firstPort} to ${endPort - 1}`);
}

/** Whether nothing listens on a loopback port. */
export async function isFree(port: number): Promise<boolean> {
  const probe = await listen(port);
  if (probe === undefined) return false;
  await new Promise((resolve) => probe.close(resolve));
  return true;
}

/** undefined when somebody else has the port. */
function listen(port: number): Promise<net.Server | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once('error', () => resolve(undefined));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => resolve(server));
  });
}
