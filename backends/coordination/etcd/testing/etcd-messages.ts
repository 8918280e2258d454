import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** How one method's messages are written and read. */
export interface Method {
  requestSerialize(message: unknown): Buffer;
  requestDeserialize(bytes: Buffer): unknown;
  responseSerialize(message: unknown): Buffer;
}

/** etcd's own description of its messages, read by somebody else: what etcd3 itself reads it with. */
const etcd3 = createRequire(import.meta.url).resolve('etcd3');
const loader: {
  loadSync(file: string, options: object): Readonly<Record<string, Record<string, Method>>>;
} = createRequire(etcd3)('@grpc/proto-loader');
const services = loader.loadSync(join(dirname(etcd3), '../proto/rpc.proto'), {
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});

export function methodOf(service: string, name: string): Method {
  const method = services[service]?.[name];
  assert.ok(method !== undefined);
  return method;
}
