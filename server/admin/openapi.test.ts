import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { adminEndpoints } from './admin-api.js';
import { answers } from './answers.js';
import { ApiScene } from './testing/api-scene.js';

test('the document names every endpoint, with what it takes', async () => {
  const scene = await ApiScene.open();
  try {
    const answer = await scene.request('GET', '/openapi.json');
    assert.equal(answer.status, 200);
    const document = JSON.parse(answer.text);
    assert.equal(document.openapi, '3.1.0');
    const endpoints = adminEndpoints(scene.options);
    const ids = new Set<string>();
    let operations = 0;
    for (const path of Object.keys(document.paths)) {
      for (const operation of Object.values<{ operationId: string }>(document.paths[path])) {
        operations += 1;
        ids.add(operation.operationId);
      }
    }
    assert.equal(operations, endpoints.length);
    assert.equal(ids.size, operations, 'each operation has an id of its own');
    for (const { path, method } of endpoints) {
      const shown = document.paths[path.replaceAll(/:(\w+)/g, '{$1}')]?.[method];
      assert.ok(shown !== undefined, `${method} ${path}`);
      for (const [, name] of path.matchAll(/:(\w+)/g)) {
        const named = shown.parameters.some(
          (parameter: { name: string; in: string }) =>
            parameter.name === name && parameter.in === 'path',
        );
        assert.ok(named, `${method} ${path} has the parameter ${name}`);
      }
    }
  } finally {
    await scene.close();
  }
});

test('docs/admin-api.md has every endpoint', async () => {
  const text = await readFile(new URL('../../../docs/admin-api.md', import.meta.url), 'utf8');
  const scene = await ApiScene.open();
  try {
    for (const { method, path } of adminEndpoints(scene.options)) {
      // Those for all repositories are told of together with those of one.
      const shown = path.replace(/^\/webhooks\/.*/, '/webhooks');
      const pattern = shown.replaceAll('.', '\\.').replaceAll(/:\w+/g, '[A-Z]+');
      assert.match(text, new RegExp(`^\\| .*${pattern}\``, 'm'), `${method} ${path}`);
    }
  } finally {
    await scene.close();
  }
});

test('it says what the schemas say that judge the requests', async () => {
  const scene = await ApiScene.open();
  try {
    const { paths } = JSON.parse((await scene.request('GET', '/openapi.json')).text);
    const create = paths['/users'].post.requestBody.content['application/json'].schema;
    assert.deepEqual(create.required, ['name']);
    assert.equal(create.additionalProperties, false);
    assert.deepEqual(create.properties.admin, { default: false, type: 'boolean' });
    const names = paths['/audit'].get.parameters.map(({ name }: { name: string }) => name);
    assert.deepEqual(names.toSorted(), [
      'after',
      'event',
      'limit',
      'outcome',
      'repository',
      'since',
      'until',
      'user',
    ]);
  } finally {
    await scene.close();
  }
});

test('answers are described for actions that there are', async () => {
  const scene = await ApiScene.open();
  await scene.close();
  const actions = new Set(adminEndpoints(scene.options).map(({ action }) => action));
  for (const action of Object.keys(answers)) assert.ok(actions.has(action), action);
});
