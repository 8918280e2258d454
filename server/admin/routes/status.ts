import type { Backend } from '../../../backends/contract/backend.js';
import { clusterState } from '../cluster-state.js';
import type { AdminApiOptions } from '../options.js';
import { endpoint, type Endpoint } from '../endpoint.js';
import { requireServerAdmin } from '../permissions.js';
import { nothing } from './fields.js';

/** How many pushes hold locks, or wait for them; which, `/locks` says. */
async function lockCounts(backend: Pick<Backend, 'locks'>): Promise<object> {
  const locks = await backend.locks();
  const held = locks.filter(({ state }) => state === 'held').length;
  return { held, waiting: locks.length - held };
}

/** The state of the server: for server administrators only. */
export function statusEndpoints(
  options: Pick<
    AdminApiOptions,
    'backend' | 'clock' | 'hostCertificates' | 'quotas' | 'serverInfo'
  >,
): Endpoint[] {
  const { backend, clock, hostCertificates, quotas, serverInfo } = options;

  const status = endpoint({
    method: 'get',
    path: '/status',
    action: 'status',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, "seeing the server's status");
      const info = serverInfo();
      return {
        status: 200,
        body: {
          version: info.version,
          node: process.version,
          startedAt: new Date(info.startedAtMs).toISOString(),
          uptimeSeconds: Math.max(0, Math.floor((clock.nowMs() - info.startedAtMs) / 1000)),
          httpUrl: info.httpUrl ?? null,
          sshUrl: info.sshUrl ?? null,
          opsUrl: info.opsUrl ?? null,
          notes: info.notes,
          storage: await backend.status(),
          cluster: await clusterState(backend),
          locks: await lockCounts(backend),
          quotas: await quotaSummary(quotas),
        },
      };
    },
  });

  const locks = endpoint({
    method: 'get',
    path: '/locks',
    action: 'lock.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'seeing locks');
      return { status: 200, body: { locks: await backend.locks() } };
    },
  });

  const hostKeys = endpoint({
    method: 'get',
    path: '/host-keys',
    action: 'host-key.list',
    input: nothing,
    run: async (call) => {
      requireServerAdmin(call.principal, 'seeing host keys');
      return { status: 200, body: { hostKeys: hostCertificates.report() } };
    },
  });

  return [status, locks, hostKeys];
}

/** How many quotas there are, and how many are nearly or wholly used up. */
async function quotaSummary(quotas: AdminApiOptions['quotas']): Promise<object> {
  const reports = await quotas.list();
  const { bytes, maxBytes } = await quotas.promised();
  return {
    set: reports.length,
    warning: reports.filter(({ state }) => state === 'warning').length,
    exceeded: reports.filter(({ state }) => state === 'exceeded').length,
    promisedBytes: bytes,
    mayPromiseBytes: maxBytes,
  };
}
