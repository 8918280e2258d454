import { connect } from 'node:net';
import type { IRangeRequest } from 'etcd3';
import { QuorateError } from '../../contract/errors.js';
import { reasonOf } from './etcd-errors.js';
import type { MemberPool } from './member-pool.js';

const probeTimeoutMs = 1_000;

/**
 * Waits until a member answers, and makes sure that all that do are of one cluster. Throws with the addresses and what
 * to do about them.
 */
export async function findCluster(
  pool: MemberPool,
  { probe, patienceMs }: { readonly probe: IRangeRequest; readonly patienceMs: number },
): Promise<void> {
  try {
    await pool.repeat((member) => member.askRange(probe), {
      patienceMs,
    });
  } catch (error) {
    const found = await Promise.all(pool.members.map(({ endpoint }) => whatListens(endpoint)));
    const cause = error instanceof QuorateError ? (error.cause ?? error) : error;
    throw new QuorateError(
      'unavailable',
      `no etcd answers: ${found.join('; ')} (${reasonOf(cause)}). Give the client addresses of an etcd cluster with ` +
        '--coordinator etcd://HOST:PORT,HOST:PORT, and etcd.ca, etcd.cert, etcd.key or etcd.user if it asks for them',
      { cause: error },
    );
  }
  // Fails when one is of another cluster. One that is down is looked at when it first answers.
  const statuses = await Promise.allSettled(pool.members.map((member) => member.askStatus()));
  for (const status of statuses) {
    if (status.status === 'fulfilled') pool.observe(status.value.header);
  }
}

async function whatListens(endpoint: string): Promise<string> {
  const colon = endpoint.lastIndexOf(':');
  const host = endpoint.slice(0, colon).replaceAll(/[[\]]/g, '');
  return new Promise((resolve) => {
    const socket = connect({ host, port: Number(endpoint.slice(colon + 1)) });
    const finish = (answer: string): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(probeTimeoutMs, () => finish(`${endpoint} does not answer`));
    socket.on('connect', () => finish(`what listens on ${endpoint} is no etcd that we may use`));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const unknown = error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN';
      finish(unknown ? `no address is known of ${host}` : `nothing listens on ${endpoint}`);
    });
  });
}
