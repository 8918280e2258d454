import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { PeerKey } from './peers/start-peers.js';

const script = fileURLToPath(new URL('../../scripts/bench-needs.mjs', import.meta.url));

const needsOf: Readonly<Record<PeerKey, readonly string[]>> = {
  quorate: ['ssh-keygen'],
  'quorate-ssh': ['ssh', 'ssh-keygen'],
  nginx: ['nginx', 'fcgiwrap'],
  'nginx-fsync': ['nginx', 'fcgiwrap'],
  'git-daemon': [],
  'node-git-server': [],
  openssh: ['ssh', 'ssh-keygen', 'sshd'],
};

/**
 * True when the programs that the peers need are there: as root where there is apt-get they are installed, elsewhere
 * what is missing is named on stderr.
 */
export function provideNeeds(peers: readonly PeerKey[]): boolean {
  const needs = new Set(['git', ...peers.flatMap((peer) => needsOf[peer])]);
  return spawnSync(process.execPath, [script, ...needs], { stdio: ['ignore', 2, 2] }).status === 0;
}
