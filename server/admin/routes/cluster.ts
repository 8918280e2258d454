import { z } from 'zod';
import type { ClusterControl, StoreView } from '../../../backends/contract/cluster.js';
import { QuorateError } from '../../../backends/contract/errors.js';
import { principalName } from '../../auth/principal.js';
import type { AdminApiOptions } from '../options.js';
import { type Call, endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing } from './fields.js';
import { openRepository } from './repositories.js';

type ClusterOptions = Pick<AdminApiOptions, 'backend' | 'authorizer' | 'recovery'>;

/** Storage nodes, the copies of a repository, and the lives of pushes: for server administrators only. */
export function clusterEndpoints(options: ClusterOptions): Endpoint[] {
  const stores = (call: Call, what: string): StoreView => {
    requireServerAdmin(call.principal, what);
    if (options.backend.stores !== undefined) return options.backend.stores;
    throw new QuorateError(
      'failed-precondition',
      `${what} is not possible: this server serves plain repositories from a directory, and keeps no record of copies and pushes; git fsck reads such a repository from the disk`,
    );
  };
  const cluster = (call: Call, what: string): ClusterControl => {
    requireServerAdmin(call.principal, what);
    if (options.backend.cluster !== undefined) return options.backend.cluster;
    throw new QuorateError(
      'failed-precondition',
      `${what} is not possible: this server is no member of a cluster, and its one store is where everything is (docs/cluster.md)`,
    );
  };
  const mark = (verb: string, to: 'draining' | undefined): Endpoint =>
    endpoint({
      method: 'post',
      path: `/nodes/:node/${verb}`,
      action: `node.${verb}`,
      input: nothing,
      run: async (call) => {
        const nodeId = call.param('node');
        await cluster(call, 'changing storage nodes').mark(nodeId, to);
        return { status: 200, body: { node: { nodeId, mark: to ?? null } } };
      },
    });

  return [
    endpoint({
      method: 'get',
      path: '/nodes',
      action: 'node.list',
      input: nothing,
      run: async (call) => {
        const nodes = await stores(call, 'seeing storage nodes').nodes();
        const replicationFactor = options.backend.cluster?.replicationFactor ?? 1;
        return { status: 200, body: { nodes, replicationFactor } };
      },
    }),
    mark('drain', 'draining'),
    mark('undrain', undefined),
    endpoint({
      method: 'post',
      path: '/nodes/:node/remove',
      action: 'node.remove',
      input: z.strictObject({ force: z.boolean().default(false) }),
      run: async (call, { force }) => {
        const nodeId = call.param('node');
        await cluster(call, 'changing storage nodes').remove(nodeId, { force });
        return { status: 200, body: { node: { nodeId, mark: 'removed' } } };
      },
    }),
    endpoint({
      method: 'get',
      path: '/repositories/:repository/replicas',
      action: 'repository.replicas',
      input: nothing,
      run: async (call) => {
        const view = stores(call, "seeing a repository's copies");
        const repository = await openRepository(options, call, 'admin');
        return { status: 200, body: { replicas: await view.replicas(repository.id) } };
      },
    }),
    endpoint({
      method: 'post',
      path: '/repositories/:repository/move',
      action: 'repository.move',
      input: z.strictObject({ nodes: z.array(z.string()).max(100).nullable() }),
      run: async (call, { nodes }) => {
        const control = cluster(call, 'moving repositories');
        const repository = await openRepository(options, call, 'admin');
        await control.move(repository.id, nodes ?? undefined);
        return { status: 200, body: { repository: { name: repository.name, nodes } } };
      },
    }),
    endpoint({
      method: 'post',
      path: '/repositories/:repository/verify',
      action: 'repository.verify',
      input: nothing,
      run: async (call) => {
        const view = stores(call, "verifying a repository's copies");
        const repository = await openRepository(options, call, 'admin');
        const verified = view.verify(repository.id, {
          signal: call.signal,
          progress: (progress) => call.events.progress(progress),
        });
        const copies = await call.events.during(verified);
        await call.events.end({ result: { repositoryId: repository.id, copies } });
        return undefined;
      },
    }),
    endpoint({
      method: 'post',
      path: '/repositories/:repository/recover',
      action: 'repository.recover',
      input: z.strictObject({
        accept: z.int().min(0).nullable().default(null),
        gone: z.array(z.string()).max(100).default([]),
        keepUnacknowledged: z.boolean().default(false),
      }),
      run: async (call, { accept, gone, keepUnacknowledged }) => {
        const control = cluster(call, 'recovering a repository');
        const repository = await openRepository(options, call, 'admin');
        const report = await control.recover(repository.id, {
          accept: accept ?? undefined,
          gone,
          keepUnacknowledged,
          actor: principalName(call.principal),
          signal: call.signal,
        });
        call.note({ recovered: report.recovered ?? null });
        return { status: 200, body: { recovery: report } };
      },
    }),
    endpoint({
      method: 'get',
      path: '/pushes/:push',
      action: 'push.explain',
      input: nothing,
      run: async (call) => {
        const pushId = call.param('push');
        const story = await stores(call, 'seeing the lives of pushes').explain(pushId);
        if (story === undefined) {
          throw new QuorateError(
            'not-found',
            `no push ${pushId} is known; pushes are remembered for a day, and their ids are in the logs and in the audit log of the front-end that took them (quorate audit --event push)`,
          );
        }
        return { status: 200, body: { push: story } };
      },
    }),
    endpoint({
      method: 'post',
      path: '/cluster/recover',
      action: 'cluster.recover',
      input: z.strictObject({
        apply: z.boolean().default(false),
        force: z.boolean().default(false),
      }),
      run: async (call, { apply, force }) => {
        requireServerAdmin(call.principal, 'recovering the cluster');
        const { frozen, restart, ...report } = await options.recovery.run({
          apply,
          force,
          signal: call.signal,
        });
        return {
          status: 200,
          body: { recovery: { frozen: frozen ?? null, restart: restart ?? null, ...report } },
        };
      },
    }),
  ];
}
