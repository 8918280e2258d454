import type { Backend, BackendStatus } from '../../../backends/contract/backend.js';
import { asQuorateError, QuorateError } from '../../../backends/contract/errors.js';
import { clusterState } from '../cluster-state.js';
import { coordinatorState } from '../coordinator-state.js';
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

type StatusOptions = Pick<
  AdminApiOptions,
  'backend' | 'clock' | 'coordinatorView' | 'hostCertificates' | 'quotas' | 'serverInfo'
>;

/** What there is to tell of the cluster, by the coordinator. */
interface Picture {
  readonly storage: BackendStatus;
  readonly cluster: object | null;
  readonly locks: object;
  readonly quotas: object;
}

/** Throws `unavailable` while the coordinator does not answer. */
async function pictureOf({ backend, quotas }: StatusOptions): Promise<Picture> {
  // Side by side: each would wait for a coordinator that is lost as long as all of them.
  const [storage, cluster, locks, summary] = await Promise.all([
    backend.status(),
    clusterState(backend),
    lockCounts(backend),
    quotaSummary(quotas),
  ]);
  return { storage, cluster, locks, quotas: summary };
}

const nothingNow: Record<keyof Picture, null> = {
  storage: null,
  cluster: null,
  locks: null,
  quotas: null,
};

/** The state of the server: for server administrators only. */
export function statusEndpoints(options: StatusOptions): Endpoint[] {
  const { backend, clock, coordinatorView, hostCertificates, serverInfo } = options;
  let last: { readonly atMs: number; readonly picture: Picture } | undefined;

  /** What is known when the coordinator cannot be asked. */
  const known = (): object => ({
    nodes: (backend.stores?.known() ?? []).map(({ mark, problem, ...node }) => ({
      ...node,
      mark: mark ?? null,
      problem: problem ?? null,
    })),
    last:
      last === undefined
        ? null
        : {
            at: new Date(last.atMs).toISOString(),
            ageSeconds: Math.max(0, Math.round((clock.nowMs() - last.atMs) / 1000)),
            ...last.picture,
          },
  });

  const status = endpoint({
    method: 'get',
    path: '/status',
    action: 'status',
    input: nothing,
    withoutCoordinator: true,
    run: async (call) => {
      requireServerAdmin(call.principal, "seeing the server's status");
      const [members, found] = await Promise.all([
        coordinatorView.members(),
        pictureOf(options).catch(unlessUnavailable),
      ]);
      const failure = found instanceof QuorateError ? found : undefined;
      // Of an embedded one there is nothing else to tell.
      if (failure !== undefined && members.length === 0) throw failure;
      if (!(found instanceof QuorateError)) last = { atMs: clock.nowMs(), picture: found };
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
          coordinator: coordinatorState(coordinatorView, members, failure),
          ...(found instanceof QuorateError ? nothingNow : found),
          known: failure === undefined ? null : known(),
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

function unlessUnavailable(error: unknown): QuorateError {
  const failure = asQuorateError(error);
  if (failure.code !== 'unavailable') throw error;
  return failure;
}
