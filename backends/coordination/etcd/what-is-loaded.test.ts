import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';

/* etcd3 tells its own errors and policies from others by identity: a second copy of what it builds on would be strange to it. */

for (const name of ['cockatiel', '@grpc/grpc-js']) {
  test(`${name} is the copy that etcd3 uses`, () => {
    const ours = createRequire(import.meta.url);
    const theirs = createRequire(ours.resolve('etcd3'));
    assert.equal(ours.resolve(name), theirs.resolve(name));
  });
}

/* Each process of a cluster has such a thread, and starts with it. */
test('the thread that keeps leases alive loads no gRPC, nor does a process before it watches', async () => {
  await import('./lease-keeper.js');
  await import('./member-pool.js');
  const loaded = Object.keys(createRequire(import.meta.url).cache);
  assert.ok(loaded.some((file) => file.endsWith('/etcd3/lib/errors.js')));
  assert.deepEqual(
    loaded.filter((file) => /node_modules\/(@grpc|protobufjs|cockatiel)\//.test(file)),
    [],
  );
});
