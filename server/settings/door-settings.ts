import type { Setting } from './setting.js';

/** Where clients come in, and by what they know the server. */
export const doorSettings = {
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
    help: 'how often certificates and keys are looked at for a change: these, cluster.tls.*, etcd.*',
  },
  publicUrl: {
    kind: 'url',
    default: undefined,
    help: 'URL under which clients reach the HTTP address (through a proxy, say); used in the lines that are printed',
  },
} as const satisfies Record<string, Setting>;
