/** The coordinator's key space (docs/architecture.md, "Keys in the coordinator"). The only place that spells a key. */

/** End of the range that covers every key starting with `prefix` (which must end in an ASCII character). */
export function prefixEnd(prefix: string): string {
  const last = prefix.charCodeAt(prefix.length - 1);
  if (!(last < 0x7f)) throw new RangeError('prefix must end in an ASCII character');
  return prefix.slice(0, -1) + String.fromCharCode(last + 1);
}

/** Generations are padded so that bytewise order is numeric order. */
export function paddedGeneration(generation: number): string {
  return String(generation).padStart(16, '0');
}

export const keys = {
  repos: 'repos/',
  repo: (id: string) => `repos/${id}`,
  heads: 'heads/',
  head: (id: string) => `heads/${id}`,
  names: 'names/',
  name: (path: string) => `names/${path}`,
  pools: 'pools/',
  pool: (poolId: string) => `pools/${poolId}`,
  poolMembers: (poolId: string) => `pool-members/${poolId}/`,
  poolMember: (poolId: string, id: string) => `pool-members/${poolId}/${id}`,
  /** Everything lock-related of one repository: ref locks, the exclusive lock, waiters. */
  locks: (id: string) => `locks/${id}/`,
  refLocks: (id: string) => `locks/${id}/refs/`,
  refLock: (id: string, ref: string) => `locks/${id}/refs/${ref}`,
  exclusiveLock: (id: string) => `locks/${id}/exclusive`,
  lockWaiters: (id: string) => `locks/${id}/waiters/`,
  lockWaiter: (id: string, waiter: string) => `locks/${id}/waiters/${waiter}`,
  allLocks: 'locks/',
  globalLock: 'locks/global',
  globalWaiters: 'locks/global-waiters/',
  globalWaiter: (waiter: string) => `locks/global-waiters/${waiter}`,
  log: (id: string) => `log/${id}/`,
  allLogs: 'log/',
  logEntry: (id: string, generation: number) => `log/${id}/${paddedGeneration(generation)}`,
  /** Front-ends that are alive, each under its lease. */
  frontEnd: (id: string) => `frontEnds/${id}`,
  /** Under the lease of that front-end: its pushes without locks are committed only while this is there. */
  fence: (frontEnd: string) => `fences/${frontEnd}`,
  /** Node ids of front-ends without a store, each under its lease. */
  frontEndName: (nodeId: string) => `front-end-names/${nodeId}`,
  /** What is read often through a front-end, under its lease. */
  readRates: 'read-rates/',
  readRate: (frontEnd: string) => `read-rates/${frontEnd}`,
  outboxes: 'outbox/',
  outbox: (id: string, pushId: string) => `outbox/${id}/${pushId}`,
  /** Changes of repositories that nobody was told of yet. `at`: padded milliseconds, so that they are told in order. */
  repositoryEvents: 'repository-events/',
  repositoryEvent: (at: string, id: string, epoch: number) =>
    `repository-events/${at}-${id}-${paddedGeneration(epoch)}`,
  users: 'users/',
  user: (name: string) => `users/${name}`,
  sshKeys: 'keys/',
  sshKey: (fingerprint: string) => `keys/${fingerprint}`,
  tokens: 'tokens/',
  token: (hash: string) => `tokens/${hash}`,
  tokenUses: 'token-uses/',
  tokenUse: (hash: string) => `token-uses/${hash}`,
  groups: 'groups/',
  group: (name: string) => `groups/${name}`,
  /** Grants on patterns of repository names; neither a pattern nor a subject can hold a colon. */
  grants: 'grants/',
  grant: (pattern: string, subject: string) => `grants/${pattern}:${subject}`,
  /** Put with every change to groups and to grants on patterns: what was read at its revision is still so. */
  accessRevision: 'access/revision',
  serverRules: 'rules/server/',
  /** The directory backend's ids are paths. */
  repositoryRules: (id: string) => `rules/repositories/${encodeURIComponent(id)}/`,
  /** `scope`: `server`, or `repositories/` and an encoded id. */
  hook: (scope: string, stage: string) => `hooks/heads/${scope}/${stage}`,
  hookParts: (scope: string, stage: string) => `hooks/parts/${scope}/${stage}/`,
  hookPart: (scope: string, stage: string, content: string, part: number) =>
    `hooks/parts/${scope}/${stage}/${content}/${part}`,
  webhooks: 'webhooks/hooks/',
  /** `scope`: `server`, or `repositories/` and an encoded id. */
  webhooksOf: (scope: string) => `webhooks/hooks/${scope}/`,
  webhook: (scope: string, hook: string) => `webhooks/hooks/${scope}/${hook}`,
  webhookDeliveries: (hook: string) => `webhooks/deliveries/${hook}/`,
  webhookDelivery: (hook: string, delivery: string) => `webhooks/deliveries/${hook}/${delivery}`,
  webhookBodies: (hook: string) => `webhooks/bodies/${hook}/`,
  webhookBody: (hook: string, delivery: string) => `webhooks/bodies/${hook}/${delivery}`,
  /** Deliveries that wait, by the time at which they are due; a delivery's id holds no slash. */
  webhookQueues: 'webhooks/queue/',
  webhookQueue: (hook: string) => `webhooks/queue/${hook}/`,
  webhookQueued: (hook: string, dueAtMs: number, delivery: string) =>
    `webhooks/queue/${hook}/${paddedGeneration(dueAtMs)}/${delivery}`,
  /** Under the lease of the process that delivers for this hook. */
  webhookClaims: 'webhooks/claims/',
  webhookClaim: (hook: string) => `webhooks/claims/${hook}`,
  /** Quotas; owners and ids are encoded, since ids of the directory backend are paths. */
  quotas: 'quotas/limits/',
  ownerQuota: (owner: string) => `quotas/limits/owners/${encodeURIComponent(owner)}`,
  repositoryQuota: (id: string) => `quotas/limits/repositories/${encodeURIComponent(id)}`,
  /** Put with every change of a quota. */
  quotaRevision: 'quotas/revision',
  quotaUsages: (owner: string) => `quotas/usage/${encodeURIComponent(owner)}/`,
  quotaUsage: (owner: string, id: string) =>
    `quotas/usage/${encodeURIComponent(owner)}/${encodeURIComponent(id)}`,
  quotaClaims: (owner: string) => `quotas/claims/${encodeURIComponent(owner)}`,
  openpgpKeys: 'openpgp-keys/',
  openpgpKey: (fingerprint: string) => `openpgp-keys/${fingerprint}`,
  authorities: 'authorities/',
  authority: (fingerprint: string) => `authorities/${fingerprint}`,
  revocations: 'revocations/',
  revocation: (id: string) => `revocations/${id}`,
  issuers: 'issuers/',
  issuer: (name: string) => `issuers/${name}`,
  /** Copies that are to go from a store while the repository goes on; deleted when they are gone. */
  allEvictions: 'evictions/',
  evictions: (storeId: string) => `evictions/${storeId}/`,
  eviction: (storeId: string, id: string) => `evictions/${storeId}/${id}`,
  /** Copies in which a verification found damage, until they are filled anew. */
  damages: 'damages/',
  damage: (id: string, storeId: string) => `damages/${id}/${storeId}`,
  /** What people decided about nodes, whether these are alive or not. */
  nodeMarks: 'node-marks/',
  nodeMark: (nodeId: string) => `node-marks/${nodeId}`,
  /** Lives of pushes, for a day. */
  traces: 'traces/',
  trace: (pushId: string) => `traces/${pushId}`,
  /** Held by the process that keeps the replica sets. */
  controller: 'controller',
  /** Storage nodes that live, under their leases. */
  nodes: 'nodes/',
  node: (nodeId: string) => `nodes/${nodeId}`,
  /** Requests of the admin API that came with an `Idempotency-Key`, by the digest of it and of who sent them. */
  adminRequests: 'admin-requests/',
  adminRequest: (place: string) => `admin-requests/${place}`,
  /** Directories that the directory backend made for names of repositories. */
  madeDirectory: (path: string) => `made-directories/${path}`,
  /** Repositories of the directory backend whose names change: what is kept about them follows. */
  nameChanges: 'name-changes/',
  nameChange: (path: string) => `name-changes/${path}`,
  /** With what places in lists are encrypted that name what is hidden. */
  hiddenPositions: 'hidden-positions',
  hostKey: (name: string) => `host-keys/${name}`,
  /** Who this cluster is: see coordination/cluster-identity.ts. */
  cluster: 'cluster/identity',
  /** Of a server without a cluster: in which store the repositories are. */
  loneStore: 'cluster/lone-store',
} as const;
