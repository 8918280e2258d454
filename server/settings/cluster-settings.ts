import type { Setting } from './setting.js';

/** Where the order of pushes is kept, and what this process is in a cluster. */
export const clusterSettings = {
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
  'cluster.alone': {
    kind: 'boolean',
    default: 'false',
    flag: '--alone',
    help: 'this server is no member of a cluster, and is to be the only one on its etcd: to be said at its first start there, which is refused otherwise, since a member without its secret looks the same',
  },
  'cluster.previousSecretFile': {
    kind: 'file',
    default: undefined,
    help: 'file with the cluster secret of before, for the first start of a front-end after it was changed: the SSH host keys in the coordinator, which are encrypted with it, are encrypted anew',
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
    help: 'copies of a repository; of a new one some may be made later, but none is made while less than a majority of them has a storage node; `quorate node list` says when there are fewer nodes than this',
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
  'replication.readReplicas.max': {
    kind: 'count',
    minimum: 0,
    default: '2',
    help: 'copies beyond `replication.factor` that a repository gets for as long as it is read much; they count for no push; 0: none',
  },
  'replication.readReplicas.rate': {
    kind: 'count',
    default: '50',
    help: 'reads per second that one copy of a repository is to serve; more than the voters are to serve together bring further copies',
  },
  'replication.readReplicas.coolDown': {
    kind: 'duration',
    default: '10m',
    help: 'how long a repository has to be read less before a further copy goes again',
  },
  'repair.downAfter': {
    kind: 'duration',
    default: '30s',
    help: 'a storage node away, or whose disk hangs, for so long is declared down: pushes at strong consistency go on without it',
  },
  'repair.after': {
    kind: 'duration',
    default: '10m',
    help: 'a storage node away, or whose disk hangs, for so long is replaced: its copies are made elsewhere',
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
    help: 'in how long a storage node, or a single server, reads all that it has from its disk, bit by bit; damage is logged, and healed where there are other copies; 0: never',
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
} as const satisfies Record<string, Setting>;
