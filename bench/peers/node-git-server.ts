import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort, startDaemon, waitForPort } from '../commands.js';
import type { Peer, PeerOptions } from './peer.js';
import { plainRepositories } from './plain-repositories.js';

/** node-git-server from npm, in a process of its own. It speaks protocol v0 only, and hangs on v2. */
export async function startNodeGitServer({ directory }: PeerOptions): Promise<Peer> {
  const root = join(directory, 'repositories');
  await mkdir(root);
  const port = await freePort();
  const program = fileURLToPath(new URL('node-git-server-main.js', import.meta.url));
  const daemon = await startDaemon(process.execPath, [program, root, String(port)], {
    logFile: join(directory, 'node-git-server.log'),
  });
  await waitForPort(port);
  return {
    name: 'node-git-server',
    transport: 'http',
    v2Http: false,
    losesCpuTime: false,
    pids: [daemon.pid],
    env: { GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'protocol.version', GIT_CONFIG_VALUE_0: '0' },
    url: (repository) => `http://127.0.0.1:${port}/${repository}.git`,
    ...plainRepositories(root),
    stop: () => daemon.stop(),
  };
}
