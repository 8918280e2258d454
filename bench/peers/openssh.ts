import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { freePort, run, startDaemon, waitForPort } from '../commands.js';
import { openSshName } from '../statistics.js';
import type { Peer, PeerOptions } from './peer.js';
import { plainRepositories } from './plain-repositories.js';

export interface SshKeyFiles {
  readonly keyFile: string;
  readonly command: (port: number) => string;
}

/** A client key, and the ssh command that offers only it. */
export async function makeSshKey(directory: string): Promise<SshKeyFiles> {
  const keyFile = join(directory, 'client-key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'bench', '-f', keyFile]);
  const options = [
    'StrictHostKeyChecking=no',
    'UserKnownHostsFile=/dev/null',
    'IdentitiesOnly=yes',
    'LogLevel=ERROR',
  ];
  return {
    keyFile,
    command: (port) =>
      ['ssh', '-F', 'none', '-p', port, '-i', keyFile, ...options.flatMap((o) => ['-o', o])].join(
        ' ',
      ),
  };
}

/** OpenSSH's sshd, which runs git in a shell of the user's. */
export async function startOpenSsh({ directory }: PeerOptions): Promise<Peer> {
  const root = join(directory, 'repositories');
  await mkdir(root);
  // sshd insists on this directory; it belongs to the system and may stay.
  await mkdir('/run/sshd', { recursive: true, mode: 0o755 });
  const port = await freePort();
  const key = await makeSshKey(directory);
  const hostKey = join(directory, 'host-key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', hostKey]);
  const authorized = join(directory, 'authorized_keys');
  await copyFile(`${key.keyFile}.pub`, authorized);
  await chmod(authorized, 0o600);
  const config = join(directory, 'sshd_config');
  await writeFile(
    config,
    [
      `ListenAddress 127.0.0.1:${port}`,
      `HostKey ${hostKey}`,
      `AuthorizedKeysFile ${authorized}`,
      'StrictModes no',
      'UsePAM no',
      'PermitRootLogin prohibit-password',
      'PasswordAuthentication no',
      'AcceptEnv GIT_PROTOCOL',
      'MaxStartups 100',
      `PidFile ${directory}/sshd.pid`,
      '',
    ].join('\n'),
  );
  const daemon = await startDaemon('/usr/sbin/sshd', ['-D', '-e', '-f', config], {
    logFile: join(directory, 'sshd.log'),
  });
  await waitForPort(port);
  return {
    name: openSshName,
    transport: 'ssh',
    v2Http: false,
    losesCpuTime: false,
    pids: [daemon.pid],
    env: { GIT_SSH_COMMAND: key.command(port) },
    url: (repository) => `ssh://${userInfo().username}@127.0.0.1:${port}${root}/${repository}.git`,
    ...plainRepositories(root),
    stop: () => daemon.stop(),
  };
}
