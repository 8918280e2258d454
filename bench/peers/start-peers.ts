import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { startGitDaemon } from './git-daemon.js';
import { startNginx, startNginxFsync } from './nginx.js';
import { startNodeGitServer } from './node-git-server.js';
import { startOpenSsh } from './openssh.js';
import type { Peer, PeerOptions } from './peer.js';
import { startQuorate } from './quorate.js';

/** Every peer by the name that `--peers` takes; in the order of the table. */
export const peerKeys = [
  'quorate',
  'nginx',
  'git-daemon',
  'node-git-server',
  'quorate-ssh',
  'openssh',
  'nginx-fsync',
] as const;
export type PeerKey = (typeof peerKeys)[number];

/** Those that are measured when nothing else is asked for. */
export const defaultPeerKeys = peerKeys.filter((key) => key !== 'nginx-fsync');

export function isPeerKey(text: string): text is PeerKey {
  return peerKeys.some((key) => key === text);
}

/** Starts servers, each in a directory of its own below `directory`. When one does not start, none is left. */
export async function startPeers(
  keys: readonly PeerKey[],
  directory: string,
): Promise<readonly Peer[]> {
  const started: Peer[] = [];
  const place = async (name: string): Promise<PeerOptions> => {
    const own = join(directory, name);
    await mkdir(own);
    return { directory: own };
  };
  let quorate: ReturnType<typeof startQuorate> | undefined;
  const startOnce = async () => (quorate ??= startQuorate(await place('quorate')));
  const starters: Readonly<Record<PeerKey, () => Promise<Peer>>> = {
    quorate: async () => (await startOnce()).http,
    'quorate-ssh': async () => (await startOnce()).ssh,
    nginx: async () => startNginx(await place('nginx')),
    'nginx-fsync': async () => startNginxFsync(await place('nginx-fsync')),
    'git-daemon': async () => startGitDaemon(await place('git-daemon')),
    'node-git-server': async () => startNodeGitServer(await place('node-git-server')),
    openssh: async () => startOpenSsh(await place('openssh')),
  };
  try {
    for (const key of keys) started.push(await starters[key]());
  } catch (error) {
    for (const peer of started) await peer.stop();
    throw error;
  }
  return started;
}
