import path from 'node:path';
import type { Coordinator } from '../backends/contract/coordinator.js';
import type { Clock, Logger, Random } from '../backends/contract/environment.js';
import { readClusterSecret } from '../backends/node/cluster-credentials.js';
import { isClusterMember } from './membership.js';
import type { Config } from './config.js';
import type { DataDirectory } from './data-directory.js';
import { openHostCertificates, type HostCertificates } from './ssh/host-certificates.js';
import { loadHostKeys, type HostKey, type NewHostKeys } from './ssh/host-keys.js';
import { loadSharedHostKeys } from './ssh/shared-host-keys.js';
import type { Teardown } from './teardown.js';

/** By what SSH clients know this server. */
export interface HostIdentity {
  readonly hostKeys: readonly HostKey[];
  readonly hostCertificates: HostCertificates;
}

export interface HostIdentityParts {
  readonly config: Config;
  readonly data: DataDirectory;
  /** For a data directory that has none. */
  readonly newHostKeys: NewHostKeys | undefined;
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly teardown: Teardown;
}

/** Host keys (of the whole cluster, for its members) and the certificates that this process has for them. */
export async function openHostIdentity(parts: HostIdentityParts): Promise<HostIdentity> {
  const { config, data, teardown } = parts;
  const directory = config['ssh.hostKeys'] ?? path.join(data.path, 'host-keys');
  const hostKeys = await openHostKeys(parts, directory);
  const hostCertificates = await openHostCertificates({
    ...parts,
    hostKeys,
    directory: config['ssh.hostCertificates'] ?? directory,
    checkMs: config['ssh.checkInterval'],
  });
  teardown.add('host certificates', () => Promise.resolve(hostCertificates.close()));
  return { hostKeys, hostCertificates };
}

async function openHostKeys(
  parts: HostIdentityParts,
  directory: string,
): Promise<readonly HostKey[]> {
  const { config, logger } = parts;
  if (config['ssh.hostKeys'] === undefined && isClusterMember(config)) {
    const secretFile = config['cluster.secretFile'];
    if (secretFile !== undefined) {
      const secret = await readClusterSecret(secretFile);
      const previousFile = config['cluster.previousSecretFile'];
      const previous =
        previousFile === undefined ? {} : { previous: await readClusterSecret(previousFile) };
      return loadSharedHostKeys({ ...parts, ...previous, secret, directory });
    }
    logger.warn(
      { component: 'ssh' },
      'front-ends have SSH host keys of their own: give them a cluster secret, or one ssh.hostKeys',
    );
  }
  return loadHostKeys(directory, logger, parts.newHostKeys);
}
