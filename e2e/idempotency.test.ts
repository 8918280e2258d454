import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { createScene, type ServerProcess } from './harness.js';

async function post(server: ServerProcess, place: string, body: object): Promise<Response> {
  return fetch(`${server.url}/api/v1${place}`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${server.adminToken}`,
      'content-type': 'application/json',
      'idempotency-key': `same-${place}`,
    },
    body: JSON.stringify(body),
  });
}

test('a creation that comes again after a crash is not done again, and its secret is not on disk', async (t) => {
  const scene = await createScene(t);
  let server = await scene.startServer();
  const { dataDirectory } = server;
  const repository = await post(server, '/repositories', { name: 'team/app' });
  assert.equal(repository.status, 201);
  const first = await repository.text();
  const body = { user: 'admin', name: 'ci' };
  const created: { secret: string; token: { id: string } } = JSON.parse(
    await (await post(server, '/tokens', body)).text(),
  );
  await server.kill('SIGKILL');
  server = await scene.startServer({ dataDirectory });
  const again = await post(server, '/repositories', { name: 'team/app' });
  assert.equal(again.status, 201);
  assert.equal(await again.text(), first);
  const token = await post(server, '/tokens', body);
  assert.equal(token.status, 409);
  const problem = await token.text();
  assert.match(problem, /done already, with the same Idempotency-Key/);
  assert.ok(problem.includes(created.token.id));
  const listed = await scene.admin(server, 'token', 'list', '--json');
  assert.equal(listed.split('"ci"').length - 1, 1);
  for (const file of await readdir(dataDirectory, { recursive: true, withFileTypes: true })) {
    if (!file.isFile()) continue;
    const content = await readFile(path.join(file.parentPath, file.name));
    assert.ok(!content.includes(created.secret), file.name);
  }
});
