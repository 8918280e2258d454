import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort, git, startDaemon, waitForPort } from '../commands.js';
import type { Peer, PeerOptions } from './peer.js';
import { plainRepositories } from './plain-repositories.js';

/** `git daemon`: git's own protocol, no HTTP and no authentication in the way. */
export async function startGitDaemon({ directory }: PeerOptions): Promise<Peer> {
  const root = join(directory, 'repositories');
  await mkdir(root);
  const port = await freePort();
  const program = join(await git(['--exec-path']), 'git-daemon');
  const args = ['--reuseaddr', '--export-all', '--enable=receive-pack', '--max-connections=64'];
  const daemon = await startDaemon(
    program,
    [...args, '--listen=127.0.0.1', `--port=${port}`, `--base-path=${root}`, root],
    { logFile: join(directory, 'git-daemon.log') },
  );
  await waitForPort(port);
  return {
    name: 'git daemon',
    transport: 'git',
    v2Http: false,
    losesCpuTime: false,
    pids: [daemon.pid],
    env: {},
    url: (repository) => `git://127.0.0.1:${port}/${repository}.git`,
    ...plainRepositories(root),
    stop: () => daemon.stop(),
  };
}
