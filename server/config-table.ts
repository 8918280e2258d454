/**
 * Every setting of the server: its key, kind, default and meaning. The parser (`config.ts`), `quorate serve --help`
 * and `docs/configuration.md` are made from this table, so they cannot disagree. It imports nothing: the CLI shows
 * help without loading what the server needs.
 */

export type SettingKind =
  | 'path'
  | 'file'
  | 'url'
  | 'address'
  | 'boolean'
  | 'count'
  | 'size'
  | 'duration'
  | 'networks'
  | 'choice'
  | 'text'
  | 'coordinator';

export interface Setting {
  readonly kind: SettingKind;
  /** As it would be written in the environment; undefined: not set. */
  readonly default: string | undefined;
  readonly help: string;
  /** `choice` only. */
  readonly choices?: readonly string[];
  /** `count` only. Default 1. */
  readonly minimum?: number;
  /** Name of its own flag; every other setting is reached with `--set KEY=VALUE`. */
  readonly flag?: string;
}

export const configTable = {
  data: {
    kind: 'path',
    default: './data',
    flag: '--data',
    help: 'data directory: repositories, users, keys, host keys, audit log; one server at a time',
  },
  backend: {
    kind: 'choice',
    choices: ['local', 'directory'],
    default: 'local',
    flag: '--backend',
    help: "where repositories live: `local`, Quorate's own store in the data directory, or `directory`, plain bare repositories below `root` that other tools may use too",
  },
  root: {
    kind: 'path',
    default: undefined,
    flag: '--root',
    help: 'directory of bare repositories; needed by, and only for, the directory backend',
  },
  coordinator: {
    kind: 'coordinator',
    default: 'embedded',
    flag: '--coordinator',
    help: 'where users, settings and the order of pushes are kept: `embedded`, in the data directory, or the members of an etcd cluster (3.4 or later), which several servers can share',
  },
  role: {
    kind: 'choice',
    choices: ['all', 'front-end', 'storage'],
    default: 'all',
    flag: '--role',
    help: 'what this process is in a cluster: `front-end` serves Git and the admin API and keeps no repositories, `storage` keeps repositories and serves front-ends and its peers, `all` is both',
  },
  'cluster.secretFile': {
    kind: 'file',
    default: undefined,
    flag: '--cluster-secret-file',
    help: 'file with the secret by which members of the cluster know each other (16 characters or more, the same on all); with it, or with cluster.tls, and a coordinator in etcd, this process is a member of a cluster',
  },
  'cluster.tls.ca': {
    kind: 'file',
    default: undefined,
    help: 'PEM file of the authorities that sign the certificates of the members: they then speak TLS to each other, and each asks the other for a certificate',
  },
  'cluster.tls.cert': {
    kind: 'file',
    default: undefined,
    help: "PEM file of this member's certificate, for server and client use, in the name or address that it advertises",
  },
  'cluster.tls.key': {
    kind: 'file',
    default: undefined,
    help: 'PEM file of the key of cluster.tls.cert',
  },
  'node.id': {
    kind: 'text',
    default: undefined,
    flag: '--node-id',
    help: 'name of this member, unlike any other (letters, digits, dots, dashes, underscores); made from the host name at the first start, and kept in the data directory',
  },
  'node.listen': {
    kind: 'address',
    default: '0.0.0.0:7420',
    flag: '--node',
    help: 'address for the other members of the cluster; only a member with a store opens it',
  },
  'node.advertise': {
    kind: 'address',
    default: undefined,
    flag: '--advertise',
    help: 'address where the other members reach node.listen; the address of this machine towards the coordinator when it is not given',
  },
  'node.zone': {
    kind: 'text',
    default: 'default',
    flag: '--zone',
    help: 'what fails together with this member (a rack, a data centre): copies of a repository are spread over zones',
  },
  'node.weight': {
    kind: 'count',
    default: '1',
    flag: '--weight',
    help: 'share of the repositories that this member is to keep, against the others',
  },
  'replication.factor': {
    kind: 'count',
    default: '3',
    help: 'copies of a new repository; some may be made later, but none is made while less than a majority of them has a storage node',
  },
  'replication.consistency': {
    kind: 'choice',
    choices: ['eventual', 'quorum', 'strong'],
    default: 'quorum',
    help: 'copies that have to hold a push before it is acknowledged: one, a majority, or all that are not declared down; a repository and a push may ask for another',
  },
  'replication.readConsistency': {
    kind: 'choice',
    choices: ['strong', 'eventual'],
    default: 'strong',
    help: 'what fetches see: every push acknowledged before, or what some copy has, without asking the coordinator for the newest; a repository may be set otherwise, and a request may ask for at least a generation (Quorate-At-Least)',
  },
  'replication.readsWithoutCoordinator': {
    kind: 'duration',
    default: '1h',
    help: 'for how long after the coordinator (etcd) was lost fetches with read consistency `eventual` go on, from names, accounts and rights as this front-end last read them; who was locked out meanwhile through another front-end is let in here for so long; 0 turns it off',
  },
  'repair.downAfter': {
    kind: 'duration',
    default: '30s',
    help: 'a storage node away for so long is declared down: pushes at strong consistency go on without it',
  },
  'repair.after': {
    kind: 'duration',
    default: '10m',
    help: 'a storage node away for so long is replaced: its copies are made elsewhere',
  },
  'repair.concurrency': {
    kind: 'count',
    default: '2',
    help: 'repositories whose copies are made or moved at the same time, in the whole cluster',
  },
  'repair.maxLog': {
    kind: 'count',
    default: '10000',
    help: 'entries in the push log of a repository beyond which a copy that holds them up is declared stale, and filled from the others',
  },
  'repair.compareInterval': {
    kind: 'duration',
    default: '10m',
    help: 'how often the copies of every repository are compared',
  },
  'scrub.interval': {
    kind: 'duration',
    default: '7d',
    help: 'in how long a storage node reads all that it has from its disk, bit by bit; damage is healed from the other copies; 0: never',
  },
  'ssh.hostKeys': {
    kind: 'path',
    default: undefined,
    help: 'directory of the SSH host keys, made there if there are none; default `host-keys` in the data directory, or, for a member of a cluster with a secret, the coordinator, so that all front-ends have the same',
  },
  'ssh.hostCertificates': {
    kind: 'path',
    default: undefined,
    help: 'directory of the certificates of the host keys (`ssh_host_ed25519_key-cert.pub` and its like); default the directory of the host keys',
  },
  'ssh.checkInterval': {
    kind: 'duration',
    default: '5s',
    help: 'how often those certificates are looked at for a change',
  },
  'etcd.prefix': {
    kind: 'text',
    default: 'quorate/',
    help: 'what every key in etcd begins with; another one for every cluster that shares the etcd',
  },
  'etcd.ca': {
    kind: 'file',
    default: undefined,
    help: "PEM file of the authorities that sign etcd's certificates; with it etcd is spoken to over TLS, without it in the clear",
  },
  'etcd.cert': {
    kind: 'file',
    default: undefined,
    help: "PEM file of this server's certificate, when etcd asks clients for one",
  },
  'etcd.key': {
    kind: 'file',
    default: undefined,
    help: 'PEM file of the key of etcd.cert',
  },
  'etcd.user': {
    kind: 'text',
    default: undefined,
    help: 'user of etcd, when it has authentication enabled; may read and write all below etcd.prefix',
  },
  'etcd.passwordFile': {
    kind: 'file',
    default: undefined,
    help: 'file with the password of etcd.user',
  },
  noAuth: {
    kind: 'boolean',
    default: 'false',
    flag: '--no-auth',
    help: 'everybody may do everything; refused unless every address is a loopback one',
  },
  http: {
    kind: 'address',
    default: '127.0.0.1:8080',
    flag: '--http',
    help: 'address for Git over HTTP and the admin API',
  },
  ssh: {
    kind: 'address',
    default: '127.0.0.1:2222',
    flag: '--ssh',
    help: 'address for Git over SSH',
  },
  ops: {
    kind: 'address',
    default: '127.0.0.1:9091',
    flag: '--ops',
    help: 'address for health, metrics and debugging; it asks nobody who they are, so keep it private',
  },
  'tls.cert': {
    kind: 'file',
    default: undefined,
    flag: '--tls-cert',
    help: 'PEM file of the certificate, with its chain: the HTTP address then speaks TLS (HTTP/1.1 and HTTP/2); a changed file is taken without a restart',
  },
  'tls.key': {
    kind: 'file',
    default: undefined,
    flag: '--tls-key',
    help: "PEM file of the certificate's key, without a passphrase",
  },
  'tls.checkInterval': {
    kind: 'duration',
    default: '5s',
    help: 'how often the two files are looked at for a change',
  },
  publicUrl: {
    kind: 'url',
    default: undefined,
    help: 'URL under which clients reach the HTTP address (through a proxy, say); used in the lines that are printed',
  },
  'log.level': {
    kind: 'choice',
    choices: ['debug', 'info', 'warn', 'error'],
    default: 'info',
    flag: '--log-level',
    help: 'least serious log lines written (JSON, on stderr)',
  },
  autoCreate: {
    kind: 'boolean',
    default: 'true',
    help: 'a push to a repository that does not exist creates it, if the user may create repositories',
  },
  'shutdown.grace': {
    kind: 'duration',
    default: '30s',
    help: "how long running requests may finish after SIGTERM; keep it some seconds shorter than the time after which your supervisor kills (a pod's terminationGracePeriodSeconds, systemd's TimeoutStopSec)",
  },
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
  'hooks.enabled': {
    kind: 'boolean',
    default: 'true',
    help: 'run the hooks that server administrators set (quorate hook); false: none can be set, and none runs',
  },
  'hooks.timeout': {
    kind: 'duration',
    default: '20s',
    help: 'longest run of one hook; the refs of the push are locked meanwhile',
  },
  'hooks.output': {
    kind: 'size',
    default: '1m',
    help: 'bytes that one hook may write; beyond, it is ended',
  },
  'hooks.processes': {
    kind: 'count',
    default: '64',
    help: 'processes that one hook may have at once; beyond, it is ended',
  },
  'webhooks.enabled': {
    kind: 'boolean',
    default: 'true',
    help: 'tell webhooks (quorate webhook) of pushes and changes; false: nothing is queued, and what waits is not sent',
  },
  'webhooks.allowedNetworks': {
    kind: 'networks',
    default: '',
    help: 'networks that webhooks may go to although they are private, loopback, link-local or otherwise not public; administrators of a repository choose its URLs, so whatever answers there can be sent requests by them',
  },
  'webhooks.timeout': {
    kind: 'duration',
    default: '10s',
    help: 'longest attempt to send a webhook, from the look-up of the name to the answer',
  },
  'webhooks.concurrency': {
    kind: 'count',
    default: '32',
    help: 'webhooks being sent at once; of one webhook at most 4, and 1 while its receiver fails',
  },
  'webhooks.firstRetry': {
    kind: 'duration',
    default: '10s',
    help: 'pause after the first attempt to send that failed; it doubles with each, up to an hour',
  },
  'webhooks.retryFor': {
    kind: 'duration',
    default: '1d',
    help: 'how long it is tried to send a webhook before it is given up',
  },
  'maintenance.enabled': {
    kind: 'boolean',
    default: 'true',
    help: 'repack repositories in the background after pushes',
  },
  'maintenance.grace': {
    kind: 'duration',
    default: '14d',
    help: 'how long objects that nothing reaches any more are kept',
  },
  'audit.maxFileSize': {
    kind: 'size',
    default: '64m',
    help: 'the audit log is set aside as `audit-<time>.jsonl` before it grows beyond this',
  },
  'audit.maxFiles': {
    kind: 'count',
    minimum: 0,
    default: '16',
    help: 'audit files set aside that are kept (0: all; then removing them is yours)',
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof configTable;

export function isSettingName(key: string): key is SettingName {
  return Object.hasOwn(configTable, key);
}

export const settingEntries: readonly (readonly [SettingName, Setting])[] = Object.entries<Setting>(
  configTable,
).filter((entry): entry is [SettingName, Setting] => isSettingName(entry[0]));

/** `limits.idleTime` -> `QUORATE_LIMITS_IDLE_TIME`. */
export function environmentName(key: string): string {
  const words = key.replaceAll(/([a-z])([A-Z])/g, '$1_$2').replaceAll('.', '_');
  return `QUORATE_${words.toUpperCase()}`;
}

/** What a value of a setting looks like, for help and messages. */
export function valueForm(setting: Setting): string {
  switch (setting.kind) {
    case 'path':
    case 'file':
      return 'a path';
    case 'url':
      return 'an http or https URL';
    case 'address':
      return 'HOST:PORT, an IPv6 address in brackets; port 0 for a free one';
    case 'boolean':
      return 'true or false';
    case 'count':
      return `a whole number, ${setting.minimum ?? 1} or more`;
    case 'size':
      return 'bytes, with k, m or g if you like, as in 64m';
    case 'duration':
      return 'a number with ms, s, m, h or d, as in 30s';
    case 'networks':
      return 'networks or addresses, comma separated, as in 10.1.0.0/16,fd00::/8';
    case 'choice':
      return (setting.choices ?? []).join(' or ');
    case 'text':
      return 'printable characters without spaces';
    case 'coordinator':
      return 'embedded, or etcd://HOST:PORT,HOST:PORT with the client address of each member';
  }
}

/** Argument of a flag in help; undefined for a switch. */
export function flagArgument(setting: Setting): string | undefined {
  switch (setting.kind) {
    case 'boolean':
      return undefined;
    case 'address':
      return 'HOST:PORT';
    case 'path':
      return 'DIR';
    case 'file':
      return 'FILE';
    case 'url':
      return 'URL';
    case 'choice':
      return (setting.choices ?? []).join('|');
    case 'coordinator':
      return 'embedded|etcd://HOST:PORT,...';
    case 'count':
    case 'size':
    case 'duration':
    case 'networks':
    case 'text':
      return 'VALUE';
  }
}

/** The settings as the table in `docs/configuration.md`. */
export function configurationMarkdown(): string {
  const rows = settingEntries.map(([key, setting]) => {
    const flag = setting.flag !== undefined ? `\`${setting.flag}\`` : '';
    const value = setting.default === undefined ? '' : `\`${setting.default}\``;
    const form = valueForm(setting);
    return `| \`${key}\` | \`${environmentName(key)}\` | ${flag} | ${value} | ${setting.help} | ${form} |`;
  });
  return [
    '| key | environment | flag | default | meaning | value |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}
