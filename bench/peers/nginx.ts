import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort, git, startDaemon, waitForPort } from '../commands.js';
import { nginxName } from '../statistics.js';
import type { Peer, PeerOptions } from './peer.js';
import { plainRepositories } from './plain-repositories.js';

/** nginx, fcgiwrap and `git http-backend`: what most people put together by hand. */
export function startNginx(options: PeerOptions): Promise<Peer> {
  return start(options, { name: nginxName, env: {} });
}

/** The same with a git that makes a push durable, loose objects and refs too, as Quorate does. */
export function startNginxFsync(options: PeerOptions): Promise<Peer> {
  const env = {
    GIT_CONFIG_COUNT: '1',
    GIT_CONFIG_KEY_0: 'core.fsync',
    GIT_CONFIG_VALUE_0: 'committed',
  };
  return start(options, { name: 'nginx, git fsyncs', env });
}

async function start(
  { directory }: PeerOptions,
  { name, env }: Pick<Peer, 'name' | 'env'>,
): Promise<Peer> {
  const root = join(directory, 'repositories');
  await mkdir(root);
  const port = await freePort();
  const socket = join(directory, 'fcgi.sock');
  const backend = join(await git(['--exec-path']), 'git-http-backend');
  const config = join(directory, 'nginx.conf');
  await writeFile(join(directory, 'htpasswd'), 'bench:{PLAIN}bench\n');
  await writeFile(config, nginxConfig({ directory, root, port, socket, backend }));
  const fcgiwrap = await startDaemon('fcgiwrap', ['-c', '16', '-s', `unix:${socket}`], {
    logFile: join(directory, 'fcgiwrap.log'),
    env,
  });
  const nginx = await startDaemon('nginx', ['-c', config, '-p', directory], {
    logFile: join(directory, 'nginx.log'),
  });
  await waitForPort(port);
  return {
    name,
    transport: 'http',
    v2Http: true,
    // fcgiwrap does.
    losesCpuTime: true,
    pids: [nginx.pid, fcgiwrap.pid],
    env: {
      GIT_CONFIG_COUNT: '1',
      GIT_CONFIG_KEY_0: `url.http://bench:bench@127.0.0.1:${port}/.insteadOf`,
      GIT_CONFIG_VALUE_0: `http://127.0.0.1:${port}/`,
    },
    url: (repository) => `http://127.0.0.1:${port}/${repository}.git`,
    ...plainRepositories(root),
    stop: async () => {
      await nginx.stop();
      await fcgiwrap.stop();
    },
  };
}

function nginxConfig(paths: {
  directory: string;
  root: string;
  port: number;
  socket: string;
  backend: string;
}): string {
  const { directory, root, port, socket, backend } = paths;
  return `
daemon off;
user root;
worker_processes 4;
pid ${directory}/nginx.pid;
error_log ${directory}/error.log;
events { worker_connections 512; }
http {
  # Whoever pushes signs in, as with Quorate: without the 401 that git waits for, a push is one request cheaper.
  map "$arg_service $uri" $realm {
    ~git-receive-pack "bench";
    default off;
  }
  access_log off;
  client_body_temp_path ${directory}/body;
  fastcgi_temp_path ${directory}/fastcgi;
  proxy_temp_path ${directory}/proxy;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  client_max_body_size 0;
  server {
    listen 127.0.0.1:${port};
    location / {
      auth_basic $realm;
      auth_basic_user_file ${directory}/htpasswd;
      fastcgi_pass unix:${socket};
      fastcgi_buffering off;
      fastcgi_request_buffering off;
      fastcgi_read_timeout 600;
      fastcgi_param SCRIPT_FILENAME ${backend};
      fastcgi_param GIT_HTTP_EXPORT_ALL "";
      fastcgi_param GIT_PROJECT_ROOT ${root};
      fastcgi_param PATH_INFO $uri;
      fastcgi_param REMOTE_USER bench;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param GIT_PROTOCOL $http_git_protocol;
      fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
    }
  }
}
`;
}
