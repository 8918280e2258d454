import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pickPort } from '../../backends/contract/testing/ports.js';
import { CliScene } from './testing/cli-scene.js';

let cli: CliScene;
before(async () => {
  cli = await CliScene.open();
});
after(() => cli.close());

describe('finding the server', () => {
  const bare = { env: {} };

  test('no server anywhere', async () => {
    const outcome = await cli.quorate(['status'], { ...bare, cwd: cli.directory });
    assert.equal(outcome.exitCode, 1);
    assert.match(
      outcome.stderr,
      /^quorate: no server found: there is no data\/server\.json; start one with "quorate serve",/,
    );
  });

  test('a storage node, which takes no commands', async () => {
    const node = join(cli.directory, 'node');
    await mkdir(node);
    await writeFile(join(node, 'node.json'), '{}');
    const outcome = await cli.quorate(['node', 'list', '--data', node], bare);
    assert.equal(outcome.exitCode, 1);
    assert.equal(
      outcome.stderr,
      `quorate: ${node} is a storage node's, and front-ends take commands: name the data directory of one on this machine with --data DIR, or set QUORATE_URL and QUORATE_TOKEN\n`,
    );
  });

  test('a data directory', async () => {
    await writeFile(
      join(cli.directory, 'server.json'),
      JSON.stringify({ httpUrl: cli.server.url, pid: 1 }),
    );
    await writeFile(join(cli.directory, 'admin-token'), `${cli.env['QUORATE_TOKEN']}\n`);
    const outcome = await cli.quorate(['repo', 'list', '--json', '--data', cli.directory], bare);
    assert.equal(outcome.exitCode, 0, outcome.stderr);
    const byVariable = await cli.quorate(['status'], { env: { QUORATE_DATA: cli.directory } });
    assert.equal(byVariable.exitCode, 0, byVariable.stderr);
  });

  test('a token in a data directory is not sent elsewhere', async () => {
    const outcome = await cli.quorate(['status'], {
      env: { QUORATE_URL: cli.server.url, QUORATE_DATA: cli.directory },
    });
    assert.equal(outcome.stderr, 'quorate: no token: it is looked for in QUORATE_TOKEN\n');
  });

  test('a token that is not taken', async () => {
    const outcome = await cli.quorate(['status'], { env: { ...cli.env, QUORATE_TOKEN: 'wrong' } });
    assert.match(
      outcome.stderr,
      /^quorate: the token is unknown, .* \(the token is from QUORATE_TOKEN\)\n$/,
    );
  });

  test('a server that does not answer', async () => {
    const httpUrl = `http://127.0.0.1:${await pickPort()}`;
    await writeFile(join(cli.directory, 'server.json'), JSON.stringify({ httpUrl }));
    const outcome = await cli.quorate(['status', '--data', cli.directory], bare);
    assert.equal(
      outcome.stderr,
      `quorate: the server at ${httpUrl} does not answer (connection refused): start it with "quorate serve --data ${cli.directory}"\n`,
    );
  });

  test('what is no Quorate server', async () => {
    const other = createServer((socket) => {
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n');
      socket.resume();
    }).listen(0, '127.0.0.1');
    await once(other, 'listening');
    const address = other.address();
    assert.ok(address !== null && typeof address === 'object');
    const QUORATE_URL = `http://127.0.0.1:${address.port}`;
    const outcome = await cli.quorate(['status'], { env: { ...cli.env, QUORATE_URL } });
    assert.equal(outcome.stderr, `quorate: ${QUORATE_URL} answered 404; is it a Quorate server?\n`);
    other.close();
  });
});
