import type { IRangeRequest, IResponseHeader } from 'etcd3';
import { EtcdAuthenticationFailedError, EtcdPermissionDeniedError } from 'etcd3/lib/errors.js';
import type { Logger } from '../../contract/environment.js';
import { QuorateError } from '../../contract/errors.js';
import { reasonOf } from './etcd-errors.js';
import type { EtcdSettings } from './etcd-settings.js';
import type { MemberPool } from './member-pool.js';
import { whatListens } from './what-listens.js';

export interface FindClusterOptions {
  readonly settings: EtcdSettings;
  readonly probe: IRangeRequest;
  readonly patienceMs: number;
  readonly logger: Logger;
}

/** A start that takes longer tells why. An etcd that answers does so within milliseconds. */
const tellAfterMs = 1_000;

/**
 * Waits until a member answers, and makes sure that all that do are of one cluster. Throws with the addresses and what
 * to do about them; of addresses that do not answer beside others that do, the log tells.
 */
export async function findCluster(
  pool: MemberPool,
  { settings, probe, patienceMs, logger }: FindClusterOptions,
): Promise<void> {
  const { tls } = settings;
  const telling = setTimeout(() => {
    const told = { coordinator: pool.where, seconds: Math.round(patienceMs / 1000) };
    logger.info(told, 'the start waits: no etcd answers yet');
  }, tellAfterMs);
  try {
    await pool.repeat((member) => member.askRange(probe), {
      patienceMs,
    });
  } catch (error) {
    const cause = error instanceof QuorateError ? (error.cause ?? error) : error;
    const refused = refusalOfUser(cause, settings);
    if (refused !== undefined) {
      const message = `etcd at ${pool.where} refuses this process (${reasonOf(cause)}): ${refused}`;
      throw new QuorateError('unavailable', message, { cause: error });
    }
    const found = await Promise.all(
      pool.members.map(({ endpoint }) => whatListens({ endpoint, tls })),
    );
    throw new QuorateError(
      'unavailable',
      `no etcd answers: ${found.join('; ')} (${reasonOf(cause)}). Give the client addresses of an etcd cluster with ` +
        '--coordinator etcd://HOST:PORT,HOST:PORT, and etcd.ca, etcd.cert, etcd.key or etcd.user if it asks for them',
      { cause: error },
    );
  } finally {
    clearTimeout(telling);
  }
  await Promise.all(
    pool.members.map(async (member) => {
      let header: IResponseHeader;
      try {
        ({ header } = await member.askStatus());
      } catch (error) {
        const { endpoint } = member;
        const found = await whatListens({ endpoint, tls });
        const told = { found, reason: reasonOf(error) };
        logger.warn({ member: endpoint, ...told }, 'an address of the coordinator does not answer');
        return;
      }
      // Fails when it is of another cluster. One that is down is looked at when it first answers.
      pool.observe(header);
    }),
  );
}

/** For people: what is wrong with the user as whom this process comes, in the words of the settings. */
function refusalOfUser(cause: unknown, { auth, prefix }: EtcdSettings): string | undefined {
  if (cause instanceof EtcdAuthenticationFailedError) {
    return 'look at etcd.user and the password in etcd.passwordFile';
  }
  if (cause instanceof EtcdPermissionDeniedError) {
    const who = auth === undefined ? 'the user that etcd.cert is of' : `the user ${auth.user}`;
    const remedy = `etcdctl role grant-permission ROLE readwrite --prefix=true ${prefix}`;
    const other = auth === undefined ? '; or name one with etcd.user and etcd.passwordFile' : '';
    return `${who} has to read and write all below etcd.prefix: ${remedy}${other}`;
  }
  const words = reasonOf(cause);
  if (words.endsWith('etcdserver: user name is empty')) {
    return 'it asks for a user: etcd.user and etcd.passwordFile';
  }
  return words.endsWith('etcdserver: authentication is not enabled')
    ? 'it has no users: leave etcd.user away, or etcdctl auth enable'
    : undefined;
}
