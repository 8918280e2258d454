import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { run, startDaemon } from '../commands.js';
import type { Daemon } from '../commands.js';
import { makeSshKey } from './openssh.js';
import type { Peer, PeerOptions } from './peer.js';

const program = fileURLToPath(new URL('../../server/main.js', import.meta.url));

/** What a server writes about itself into its data directory. */
interface Endpoints {
  readonly httpUrl: string;
  readonly sshPort: number;
  readonly opsUrl: string;
  readonly pid: number;
}

export interface QuoratePeers {
  readonly http: Peer;
  readonly ssh: Peer;
  /** Where `/metrics` is. */
  readonly opsUrl: string;
}

/**
 * Quorate as `npm start` runs it: one server, two peers, which keep their repositories apart. Reading is public, as it
 * is with the other peers; a push over HTTP signs in with a token, after the 401 that makes git do so.
 */
export async function startQuorate({ directory }: PeerOptions): Promise<QuoratePeers> {
  const data = join(directory, 'data');
  await mkdir(data);
  const anyPort = ['--http', '127.0.0.1:0', '--ssh', '127.0.0.1:0', '--ops', '127.0.0.1:0'];
  const daemon = await startDaemon(
    process.execPath,
    ['--max-semi-space-size=32', program, 'serve', '--data', data, ...anyPort],
    {
      logFile: join(directory, 'quorate.log'),
      env: { UV_THREADPOOL_SIZE: '16' },
    },
  );
  const endpoints = await waitUntilServing(data, daemon);
  const key = await makeSshKey(directory);
  await quorate(data, ['key', 'add', 'admin', `${key.keyFile}.pub`]);
  const token = (await readFile(join(data, 'admin-token'), 'utf8')).trim();
  const withToken = new URL(endpoints.httpUrl);
  withToken.username = 'admin';
  withToken.password = token;
  let stopped: Promise<void> | undefined;
  const shared = {
    pids: [daemon.pid],
    losesCpuTime: false,
    // Maintenance looks at a repository a second after the push.
    quietMs: 1_500,
    stop: () => (stopped ??= daemon.stop()),
  };
  const httpUrl = (path: string): string => `${endpoints.httpUrl}/${path}.git`;
  const http: Peer = {
    ...shared,
    name: 'Quorate',
    transport: 'http',
    v2Http: true,
    // The token comes by the environment: arguments can be read by everybody on the machine.
    env: {
      GIT_CONFIG_COUNT: '1',
      GIT_CONFIG_KEY_0: `url.${withToken.origin.replace('//', `//admin:${token}@`)}/.insteadOf`,
      GIT_CONFIG_VALUE_0: `${endpoints.httpUrl}/`,
    },
    url: (repository) => httpUrl(`http/${repository}`),
    ...repositoriesOf(data, 'http'),
  };
  const ssh: Peer = {
    ...shared,
    name: 'Quorate SSH',
    transport: 'ssh',
    v2Http: false,
    env: { GIT_SSH_COMMAND: key.command(endpoints.sshPort) },
    url: (repository) => `ssh://git@127.0.0.1:${endpoints.sshPort}/ssh/${repository}.git`,
    ...repositoriesOf(data, 'ssh'),
  };
  return { http, ssh, opsUrl: endpoints.opsUrl };
}

function repositoriesOf(data: string, group: string): Pick<Peer, 'load' | 'create' | 'remove'> {
  return {
    load: async (repository, barePath) => {
      const name = `${group}/${repository}`;
      await quorate(data, ['repo', 'import', '--public', name, barePath]);
      await quorate(data, ['repo', 'maintain', name]);
    },
    create: async (repository) => {
      await quorate(data, ['repo', 'create', '--public', `${group}/${repository}`]);
    },
    remove: async (repository) => {
      await quorate(data, ['repo', 'delete', '--yes', `${group}/${repository}`]);
    },
  };
}

function quorate(data: string, words: readonly string[]): Promise<string> {
  return run(process.execPath, [program, ...words, '--data', data]);
}

async function waitUntilServing(data: string, daemon: Daemon): Promise<Endpoints> {
  for (let tries = 0; tries < 600; tries++) {
    const text = await readFile(join(data, 'server.json'), 'utf8').catch(() => undefined);
    const endpoints: Endpoints | undefined = text === undefined ? undefined : JSON.parse(text);
    if (endpoints?.pid === daemon.pid) return endpoints;
    await delay(50);
  }
  await daemon.stop();
  throw new Error('Quorate did not start: see quorate.log');
}
