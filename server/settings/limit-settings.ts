import type { Setting } from './setting.js';

/** What keeps one client, script or repository from taking everything. */
export const limitSettings = {
  'limits.handshakeTime': {
    kind: 'duration',
    default: '30s',
    help: 'time a client has to send its HTTP headers, or to sign in over SSH',
  },
  'limits.idleTime': {
    kind: 'duration',
    default: '5m',
    help: 'longest silence of a client that is waited for; git is silent while it compresses a large push',
  },
  'limits.requestTime': {
    kind: 'duration',
    default: '6h',
    help: 'longest request in all (100 GB over 50 Mbit/s take under 5 hours)',
  },
  'limits.fetchBody': {
    kind: 'size',
    default: '16m',
    help: 'bytes of a fetch request, after decoding (a want is 50 bytes)',
  },
  'limits.pushBody': {
    kind: 'size',
    default: '0',
    help: "bytes of a push over HTTP, after decoding (0: only the repository's own receive.maxInputSize)",
  },
  'limits.connections': {
    kind: 'count',
    default: '10000',
    help: 'open connections of HTTP, and of SSH; never more than three eighths of the open files that the system allows (ulimit -n)',
  },
  'limits.connectionsPerAddress': {
    kind: 'count',
    default: '512',
    help: 'open connections of one IPv4 address or IPv6 /64, over HTTP, and over SSH; raise it behind a proxy',
  },
  'limits.requestsPerPrincipal': {
    kind: 'count',
    default: '256',
    help: 'running HTTP requests, and SSH connections, of one user (of one address when anonymous); more requests wait, more connections are refused',
  },
  'limits.requestsPerAddress': {
    kind: 'count',
    default: '512',
    help: 'running requests of one IPv4 address or IPv6 /64, over HTTP, and over SSH; more wait; raise it behind a proxy',
  },
  'limits.requestsPerRepository': {
    kind: 'count',
    default: '512',
    help: 'running requests on one repository, over HTTP, and over SSH; more wait',
  },
  'limits.ratePerPrincipal': {
    kind: 'count',
    minimum: 0,
    default: '0',
    help: 'requests of one user in a minute, over HTTP, over SSH, and to the admin API (0: no limit); more are refused',
  },
  'limits.ratePerAddress': {
    kind: 'count',
    minimum: 0,
    default: '0',
    help: 'the same of one IPv4 address or IPv6 /64',
  },
  'limits.ratePerRepository': {
    kind: 'count',
    minimum: 0,
    default: '0',
    help: 'the same on one repository',
  },
  'limits.queueLength': {
    kind: 'count',
    default: '1024',
    help: 'requests of one user that wait in one queue, before more are refused',
  },
  'limits.queueTime': {
    kind: 'duration',
    default: '10m',
    help: 'how long a request waits for its turn before it is refused',
  },
  'limits.packMemory': {
    kind: 'size',
    default: '0',
    help: "memory for the packs that fetches make or send, of HTTP, and of SSH, each (0: an eighth of the machine's or container's memory, at most 256m); more fetches wait",
  },
  'limits.indexMemory': {
    kind: 'size',
    default: '0',
    help: "memory that git may take to index one pushed pack (0: a quarter of the machine's, from 1g to 4g); for a pack of up to 4 MiB it is 1280m at most",
  },
  'limits.failedSignIns': {
    kind: 'count',
    minimum: 0,
    default: '30',
    help: 'wrong credentials from one address in a minute before it has to wait (0: no limit)',
  },
  'limits.gitProcesses': {
    kind: 'count',
    default: '64',
    help: 'git processes for fetches, and for pushes, over HTTP, and over SSH, each; more requests wait',
  },
  'quota.warnAt': {
    kind: 'count',
    default: '80',
    help: 'percent of a quota (quorate quota) from which on pushers are warned',
  },
  'quota.overcommit': {
    kind: 'count',
    default: '100',
    help: 'percent of the disk that quotas may promise together: more than 100 trusts that not all are used up',
  },
  'quota.capacity': {
    kind: 'size',
    default: '0',
    help: 'bytes that quotas share out (0: the size of the disk of the data directory or root)',
  },
  'locks.timeout': {
    kind: 'duration',
    default: '30s',
    help: 'how long a push waits for the refs it updates before it is refused',
  },
} as const satisfies Record<string, Setting>;
