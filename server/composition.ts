import assert from 'node:assert/strict';
import { statfs } from 'node:fs/promises';
import path from 'node:path';
import type { Backend } from '../backends/contract/backend.js';
import type { ClusterIdentity } from '../backends/coordination/cluster-identity.js';
import type { Coordinator, ProcessLease } from '../backends/contract/coordinator.js';
import type { AskCoordinatorMembers } from '../backends/contract/coordinator-members.js';
import type { PastReads } from '../backends/contract/past-reads.js';
import type { Clock, Logger, Random } from '../backends/contract/environment.js';
import type { RepositoryRegistry } from '../backends/contract/repository.js';
import type { GitRunner } from '../backends/git/git-runner.js';
import { membersBehind } from '../backends/replicated/members-behind.js';
import { loneNodeId } from '../backends/replicated/lone-store.js';
import { repositoryName } from '../backends/replicated/records.js';
import { DiskWatch } from '../backends/local/disk-watch.js';
import { TlsFiles, type TlsPair } from '../backends/node/tls-files.js';
import { createHookStore, type HookStore } from '../hooks/custom/hook-store.js';
import { createMessageCheck } from '../hooks/rules/message-check.js';
import { createRuleStore, type RuleStore } from '../hooks/rules/rule-store.js';
import { createPushPipeline } from '../hooks/pipeline.js';
import { createQuotas, type Quotas } from '../hooks/quota/quotas.js';
import { createWebhooks, type Webhooks } from '../hooks/webhooks/webhooks.js';
import { HiddenPositions } from './admin/hidden-positions.js';
import { RequestRecords } from './admin/request-records.js';
import { createAdminApi } from './admin/admin-api.js';
import { createAccessDirectory } from './auth/access-directory.js';
import { createAuthorizer } from './auth/access-rules.js';
import { createAccounts } from './auth/account-store.js';
import type { Accounts } from './auth/accounts.js';
import { LocalAdmin } from './auth/local-admin.js';
import { GoneDeployKeys } from './auth/gone-deploy-keys.js';
import { createOpenpgpKeys } from './auth/openpgp-keys.js';
import { trustedSigners } from './auth/signers.js';
import { createOpenIdIssuers } from './auth/openid-issuers.js';
import { createCertificateAuthorities } from './auth/certificate-authorities.js';
import type { Address, Config } from './config.js';
import { claimAlone, isClusterMember, ownHostOf, refuseAlone, tellEndOf } from './membership.js';
import { openCoordinator, type OpenedCoordinator } from './coordinator.js';
import { ClientRates } from './core/client-rates.js';
import { createClusterRecovery } from '../backends/replicated/cluster-recovery.js';
import { createGitService } from './core/git-service.js';
import { defaultGitServiceLimits } from './core/limits.js';
import { adminTokenFileName, type DataDirectory, type ServerFile } from './data-directory.js';
import { adminName } from './first-start.js';
import type { GitEngine } from './git-engine.js';
import { createHttpListener } from './http/http-listener.js';
import { openHostIdentity, type HostIdentity } from './host-identity.js';
import { admissionLimits, httpLimits, sshLimits } from './listener-limits.js';
import type { Lifecycle } from './lifecycle.js';
import { listenOn } from './listen.js';
import { serverFile, type ServerUrls, urlsFromAfar } from './server-file.js';
import { openAuditLog } from './observe/audit-log.js';
import type { FileAuditLog } from './observe/audit-log.js';
import { createAuditTail } from './observe/audit-tail.js';
import { createAuditTrail } from './observe/audit-trail.js';
import type { Metrics } from './observe/metrics.js';
import { createOpsServer } from './observe/ops-server.js';
import {
  checkMembership,
  checkStorage,
  createGitCheck,
  servingWithoutCoordinator,
} from './readiness.js';
import { describeHostCertificates } from './ssh/host-certificates.js';
import type { NewHostKeys } from './ssh/host-keys.js';
import { createSshListener } from './ssh/ssh-listener.js';
import type { Teardown } from './teardown.js';

export interface CompositionParts {
  readonly config: Config;
  readonly data: DataDirectory;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly lifecycle: Lifecycle;
  /** Gets a way to close each part as it is opened. */
  readonly teardown: Teardown;
  /** Aborted when the process stops and nothing that it serves runs any more. */
  readonly stopping: AbortSignal;
  readonly version: string;
  readonly metrics: Metrics;
  /** It starts meanwhile. */
  readonly engine: Promise<GitEngine>;
  /** They are being made meanwhile, where a first start needs some. */
  readonly newHostKeys: NewHostKeys | undefined;
}

export interface ComposedServer {
  readonly accounts: Accounts;
  readonly audit: FileAuditLog;
  /** Opens the doors. Resolves with where they are. */
  listen(): Promise<ServerFile>;
  /** Stops accepting; what runs may finish until the deadline on the monotonic clock. */
  drain(deadlineMs: number): Promise<void>;
}

/** What the rest is built on. */
export interface Foundation extends CompositionParts {
  readonly meter: Metrics;
  readonly audit: FileAuditLog;
  /** Of the repositories, or else of the data directory. */
  readonly disk: DiskWatch;
  /** The disk of the data directory answers nothing. */
  readonly diskHangs: () => boolean;
  readonly git: GitRunner;
  readonly store: GitEngine['store'];
  readonly coordinator: Coordinator;
  readonly identity: ClusterIdentity;
  readonly unguarded: Coordinator;
  readonly lease: ProcessLease;
  readonly past?: PastReads;
  readonly askMembers: AskCoordinatorMembers;
  readonly rules: RuleStore;
  readonly hooks: HookStore;
  readonly webhooks: Webhooks;
  readonly quotas: Quotas;
  readonly backend: Backend;
  /** What else takes no new work when the server drains. */
  readonly draining: ((graceMs: number) => Promise<void>)[];
  /** What is wrong with certificates between members, or to etcd. */
  readonly certificateProblems: (() => string | undefined)[];
  /** What is wrong with the store of this process, if it has one, as a member of the cluster. */
  readonly nodeProblems: (() => string | undefined)[];
  /** Of the HTTP address, when that speaks TLS. */
  readonly tls: TlsFiles<TlsPair> | undefined;
  readonly hostIdentity: HostIdentity;
}

/**
 * The composition root: the only place that constructs parts and hands them to each other. Nothing is served before
 * `listen`, except health and metrics: recovery after a crash may take its time, and should be seen.
 */
export async function compose(parts: CompositionParts): Promise<ComposedServer> {
  const foundation = await layFoundation(parts);
  const ops = await openOps(foundation);
  const frozen = foundation.identity.frozen !== undefined;
  await foundation.backend.start({ frozen });
  if (!frozen) foundation.webhooks.start();
  return openDoors(foundation, ops);
}

async function layFoundation(parts: CompositionParts): Promise<Foundation> {
  const { config, data, clock, logger, teardown, metrics } = parts;
  const audit = await openAuditLog({
    directory: data.path,
    logger,
    clock,
    meter: metrics,
    maxFileBytes: config['audit.maxFileSize'],
    maxFiles: config['audit.maxFiles'],
  });
  teardown.add('audit log', () => audit.close());
  const tls = await openTls(parts, metrics);
  const { git, store } = await parts.engine;
  const disk = openDisk({ ...parts, meter: metrics });
  // The coordinator and the store are on it, unless it is another one's repositories that are looked at.
  const diskHangs = (): boolean => config.root === undefined && disk.finding?.hangs === true;
  const dataDirectory = data.path;
  const opened = await openCoordinator({ ...parts, meter: metrics, dataDirectory, diskHangs });
  const { coordinator } = opened;
  if (opened.coordinatorTls !== undefined) tellEndOf(opened.coordinatorTls, 'etcd', metrics);
  const hostIdentity = await openHostIdentity({ ...parts, coordinator });
  const rules = createRuleStore(coordinator);
  const hooks = createHookStore({ coordinator, clock, random: parts.random });
  const webhooks = openWebhooks({ ...parts, ...opened, meter: metrics });
  let backend: Backend | undefined = undefined;
  const quotas = openQuotas({ ...parts, coordinator, meter: metrics }, () => {
    assert(backend !== undefined, 'nothing is pushed before there is a backend');
    return backend.repositories;
  });
  const below = {
    ...parts,
    meter: metrics,
    audit,
    tls,
    hostIdentity,
    disk,
    diskHangs,
    git,
    store,
    ...opened,
    rules,
    hooks,
    webhooks,
    draining: [],
    certificateProblems: [() => opened.coordinatorTls?.problem()],
    nodeProblems: [],
    quotas,
  };
  const openedBackend = await openBackend(below);
  backend = openedBackend;
  teardown.add('webhooks', () => webhooks.close());
  // Requests were drained before; what the backend itself still does (maintenance) is cut short.
  teardown.add('backend', () => openedBackend.close(0));
  return { ...below, backend: openedBackend };
}

/** Nothing is written among repositories that other tools may have. */
function openDisk(parts: CompositionParts & Pick<Foundation, 'meter'>): DiskWatch {
  const { root } = parts.config;
  const directory = root ?? parts.data.path;
  const disk = new DiskWatch({ ...parts, directory, writes: root === undefined });
  void disk.keepLooking(parts.stopping);
  return disk;
}

function openQuotas(
  parts: CompositionParts & { readonly coordinator: Coordinator; readonly meter: Metrics },
  repositories: () => RepositoryRegistry,
): Quotas {
  const { config, coordinator, data } = parts;
  return createQuotas({
    ...parts,
    repositories,
    // The directory backend's ids are names.
    repositoryName: (id) =>
      config.backend === 'directory' ? Promise.resolve(id) : repositoryName(coordinator, id),
    diskBytes: async () => {
      if (config['quota.capacity'] > 0) return config['quota.capacity'];
      const { blocks, bsize } = await statfs(config.root ?? data.path);
      return blocks * bsize;
    },
    overcommitPercent: config['quota.overcommit'],
    warnPercent: config['quota.warnAt'],
  });
}

function openWebhooks(
  parts: CompositionParts &
    Pick<OpenedCoordinator, 'coordinator' | 'lease'> & { readonly meter: Metrics },
): Webhooks {
  const { config, coordinator } = parts;
  return createWebhooks({
    ...parts,
    repositoryName: (id) => repositoryName(coordinator, id),
    publicUrl: config.publicUrl,
    options: {
      enabled: config['webhooks.enabled'],
      concurrency: config['webhooks.concurrency'],
      timeoutMs: config['webhooks.timeout'],
      firstRetryMs: config['webhooks.firstRetry'],
      retryForMs: config['webhooks.retryFor'],
      allowedNetworks: config['webhooks.allowedNetworks'],
    },
  });
}

async function openTls(
  { config, clock, logger, teardown }: CompositionParts,
  metrics: Metrics,
): Promise<TlsFiles<TlsPair> | undefined> {
  const { 'tls.cert': cert, 'tls.key': key } = config;
  if (cert === undefined || key === undefined) return undefined;
  const checkMs = config['tls.checkInterval'];
  const paths = { cert, key };
  const tls = await TlsFiles.openPair({ name: 'tls', paths, checkMs, clock, logger });
  teardown.add('tls', () => Promise.resolve(tls.close()));
  tellEndOf(tls, 'https', metrics);
  return tls;
}

async function openBackend(below: Omit<Foundation, 'backend'>): Promise<Backend> {
  const { config, data, store, coordinator, rules, hooks, quotas } = below;
  const deployKeys = new GoneDeployKeys(coordinator);
  const pipeline = createPushPipeline({
    ...below,
    forget: async (repository) => {
      await deployKeys.remove(repository.id);
      await rules.removeAll(repository.id);
      await hooks.removeAll(repository.id);
      await quotas.deleted(repository);
    },
    copy: async ({ from, to }) => {
      await rules.copy(from, to);
      await quotas.copy(from, to);
    },
    move: ({ from, to }) => deployKeys.rebind(from, to),
    hookOptions: {
      enabled: config['hooks.enabled'],
      limits: {
        timeoutMs: config['hooks.timeout'],
        maxOutputBytes: config['hooks.output'],
        maxProcesses: config['hooks.processes'],
      },
    },
    repositoryName: (id) => repositoryName(coordinator, id),
    signers: () => trustedSigners(coordinator),
    messages: createMessageCheck(),
  });
  // Each kind is loaded where it is served: all of them together are a third of the program.
  if (config.backend === 'directory') {
    assert(config.root !== undefined, 'the configuration sees to it');
    const { createDirectoryBackend } = await import('../backends/directory/directory-backend.js');
    return createDirectoryBackend({ ...below, pipeline, root: config.root });
  }
  if (config.role === 'front-end' || isClusterMember(config)) {
    const { openClusterBackend } = await import('./cluster-composition.js');
    return openClusterBackend({ ...below, pipeline });
  }
  await refuseAlone(config, coordinator);
  assert(store !== undefined, 'what is no front-end has a store');
  const { createLocalBackend } = await import('../backends/local/local-backend.js');
  return createLocalBackend({
    ...below,
    dataDirectory: data.path,
    ...store,
    claim: (storeId) => claimAlone(below, storeId),
    pipeline,
    options: {
      nodeId: loneNodeId,
      lockTimeoutMs: config['locks.timeout'],
      maintenance: {
        enabled: config['maintenance.enabled'],
        pruneGraceMs: config['maintenance.grace'],
      },
      scrubIntervalMs: config['scrub.interval'],
    },
  });
}

async function openOps(foundation: Foundation): Promise<Address> {
  const { config, coordinator, backend, audit } = foundation;
  const degraded = (): string | undefined => servingWithoutCoordinator(foundation);
  const server = createOpsServer({
    ...foundation,
    degraded,
    phase: () => foundation.lifecycle.state.phase,
    checks: {
      coordinator: async () => {
        if (degraded() === undefined) await coordinator.ping();
      },
      storage: () => checkStorage(foundation.disk),
      git: createGitCheck(foundation),
      ...(config.role === 'front-end'
        ? { members: () => checkMembership(() => backend.cluster?.stranger) }
        : {}),
      audit: async () => {
        const problem = audit.problem();
        if (problem !== undefined) throw new Error(problem);
        return Promise.resolve();
      },
    },
    warnings: {
      tls: () => foundation.tls?.problem(),
      cluster: () => foundation.certificateProblems.map((problem) => problem()).find(Boolean),
      ssh: () => foundation.hostIdentity.hostCertificates.problem(),
      coordinator: () => foundation.identity.frozen?.message,
      // What a store of its own has it may serve all the same.
      members: () => (config.role === 'front-end' ? undefined : backend.cluster?.stranger),
      node: () => foundation.nodeProblems.map((problem) => problem()).find(Boolean),
    },
    locks: () => backend.locks(),
  });
  const address = await listenOn('ops', server, config.ops);
  foundation.teardown.add('operations server', () => server.close());
  return address;
}

/** For `quorate status`: it is the first that people ask. */
function frozenNote({ identity: { frozen } }: Pick<Foundation, 'identity'>): { frozen?: string } {
  return frozen === undefined ? {} : { frozen: frozen.message };
}

/** Only where the coordinator can be lost. */
function openLocalAdmin(foundation: Foundation, accounts: Accounts): LocalAdmin {
  const { config, data, stopping } = foundation;
  const tokenFile = path.join(data.path, adminTokenFileName);
  const localAdmin = new LocalAdmin({ ...foundation, accounts, tokenFile, user: adminName });
  if (config.coordinator.type !== 'embedded') void localAdmin.keepLooking(stopping);
  return localAdmin;
}

async function openDoors(foundation: Foundation, opsAddress: Address): Promise<ComposedServer> {
  const { config, data, clock, teardown, version } = foundation;
  const { noAuth } = config;
  const issuers = createOpenIdIssuers(foundation);
  const accounts = createAccounts({ ...foundation, issuers });
  const directory = createAccessDirectory(foundation);
  const authorities = createCertificateAuthorities({ ...foundation, accounts });
  const authorizer = createAuthorizer({ autoCreate: config.autoCreate });
  const service = createGitService({
    ...foundation,
    authorizer,
    limits: { ...defaultGitServiceLimits, maxFetchRequestBytes: config['limits.fetchBody'] },
    admission: admissionLimits(config),
    spoolDirectory: path.join(data.path, 'spool'),
  });
  const startedAtMs = clock.nowMs();
  const draining = new AbortController();
  let urls: ServerUrls | undefined;
  const ssh = createSshListener({
    ...foundation,
    accounts,
    authorities,
    service,
    noAuth,
    ...foundation.hostIdentity,
    limits: sshLimits(config),
  });
  const adminApi = createAdminApi({
    ...foundation,
    recovery: createClusterRecovery({
      ...foundation,
      membersBehind: (incarnation) => membersBehind(foundation.coordinator, incarnation),
    }),
    requestRecords: new RequestRecords(foundation),
    hiddenPositions: new HiddenPositions(foundation),
    rates: new ClientRates('admin', admissionLimits(config), foundation),
    coordinatorView: {
      members: foundation.askMembers,
      lostForMs: () => foundation.past?.lostForMs,
      readsWithoutMs: config['replication.readsWithoutCoordinator'],
    },
    localAdmin: openLocalAdmin(foundation, accounts),
    auditTrail: createAuditTrail(data.path),
    auditTail: createAuditTail(data.path),
    draining: draining.signal,
    accounts,
    directory,
    issuers,
    authorities,
    authorizer,
    noAuth,
    hooksEnabled: config['hooks.enabled'],
    hostCertificates: foundation.hostIdentity.hostCertificates,
    openpgpKeys: createOpenpgpKeys(foundation),
    serverInfo: () => ({
      version,
      startedAtMs,
      httpUrl: urls?.httpUrl,
      sshUrl: urls?.sshUrl,
      opsUrl: urls?.opsUrl,
      notes: {
        ...frozenNote(foundation),
        'SSH cryptography': ssh.cryptoDescription.native ? 'native' : 'JavaScript (slower)',
        ...describeHostCertificates(foundation.hostIdentity.hostCertificates),
      },
    }),
  });
  const http = createHttpListener({
    ...foundation,
    accounts,
    service,
    adminApi,
    noAuth,
    limits: httpLimits(config),
    publicUrl: config.publicUrl,
  });
  return {
    accounts,
    audit: foundation.audit,
    async listen() {
      const httpAddress = await listenOn('http', http, config.http);
      teardown.add('http', () => http.drain(0));
      const sshAddress = await listenOn('ssh', ssh, config.ssh);
      teardown.add('ssh', () => ssh.drain(0));
      const bound = { http: httpAddress, ssh: sshAddress, ops: opsAddress };
      urls = urlsFromAfar(bound, { config, ownHost: await ownHostOf(config) });
      return serverFile(bound, foundation);
    },
    async drain(deadlineMs) {
      draining.abort();
      const graceMs = Math.max(0, deadlineMs - clock.monotonicMs());
      await Promise.all([
        http.drain(graceMs),
        ssh.drain(graceMs),
        ...foundation.draining.map((drain) => drain(graceMs)),
      ]);
    },
  };
}
