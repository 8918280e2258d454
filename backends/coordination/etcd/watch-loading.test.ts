import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { afterEach, beforeEach, test } from 'node:test';
import { MemberClient } from './member-client.js';

/** By which Node loads what etcd3 is made of. */
const loaders = createRequire(import.meta.url).extensions;
const usual = loaders['.js'];

let member: MemberClient;
beforeEach(() => {
  // Nothing listens there, and nothing is sent.
  member = new MemberClient('127.0.0.1:1', { endpoints: ['127.0.0.1:1'], prefix: '' });
});
afterEach(() => {
  member.close();
  loaders['.js'] = usual;
});

test('a watch that could not load etcd3, for lack of open files, can later', async () => {
  loaders['.js'] = (_module, path) => {
    throw Object.assign(new Error(`EMFILE: ${path}`), { code: 'EMFILE' });
  };
  await assert.rejects(member.watch(), { code: 'EMFILE' });
  loaders['.js'] = usual;
  const stream = await member.watch();
  stream.on('error', () => undefined);
  stream.cancel();
});
