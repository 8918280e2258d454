import { execFileSync, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock, Logger, Meter } from '../../../backends/contract/environment.js';
import { pickPort } from '../../../backends/contract/testing/ports.js';
import type { Accounts } from '../../auth/accounts.js';
import { parseSshPublicKeyLine, sshFingerprint } from '../../auth/ssh-public-key.js';
import type { GitService } from '../../core/git-request.js';
import type { AuditEvent } from '../../observe/audit.js';
import type { HostCertificate } from '../host-certificate.js';
import { loadHostKeys, type HostKey } from '../host-keys.js';
import { createSshListener, type SshListener } from '../ssh-listener.js';
import { defaultSshLimits, type SshLimits } from '../ssh-limits.js';

export const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    sleep(ms, undefined, { ref: false, ...(signal ? { signal } : {}) }).catch(() => undefined),
};

export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};

const silentMeter: Meter = {
  count: () => undefined,
  observe: () => undefined,
  gauge: () => undefined,
};

export interface LogLine {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

export interface Finished {
  readonly stdout: Buffer;
  readonly stderr: string;
  readonly exitCode: number | null;
}

/** A listener on a free port, with real keys, a user `alice` who has them, and real clients to run against it. */
export interface SshScene {
  readonly directory: string;
  readonly listener: SshListener;
  readonly port: number;
  readonly hostKeys: readonly HostKey[];
  readonly audited: readonly AuditEvent[];
  /** Of level info. */
  readonly logged: readonly LogLine[];
  /** Makes a key with ssh-keygen and, unless `stranger`, gives it to `user`. Returns the private key's file. */
  addKey(
    name: string,
    options: { keygen: readonly string[]; user?: string; stranger?: boolean },
  ): string;
  removeKeys(): void;
  /** Options that every run of ssh needs. */
  sshOptions(keyFile: string): readonly string[];
  start(keyFile: string, ...rest: readonly string[]): ChildProcessWithoutNullStreams;
  ssh(keyFile: string, ...rest: readonly string[]): Promise<Finished>;
  close(): Promise<void>;
}

/** Making an RSA key takes a second; the scenes of one process share theirs. */
let hostKeysOfProcess: Promise<readonly HostKey[]> | undefined;

export async function createSshScene(
  service: GitService,
  limits: Partial<SshLimits> & {
    readonly noAuth?: boolean;
    /** Default the real one. */
    readonly clock?: Clock;
    readonly certificates?: (hostKeys: readonly HostKey[]) => readonly HostCertificate[];
  } = {},
): Promise<SshScene> {
  const directory = mkdtempSync(join(tmpdir(), 'quorate-ssh-'));
  const owners = new Map<string, string>();
  const audited: AuditEvent[] = [];
  const logged: LogLine[] = [];
  hostKeysOfProcess ??= loadHostKeys(join(directory, 'host'), silentLogger);
  const hostKeys = await hostKeysOfProcess;
  const listener = createSshListener({
    service,
    accounts: accountsOf(owners),
    authorities: { judge: unused },
    audit: {
      record: (event) => void audited.push(event),
      flush: async () => undefined,
      close: async () => undefined,
    },
    logger: {
      ...silentLogger,
      info: (fields, message) => void logged.push({ fields: { ...fields }, message }),
    },
    meter: silentMeter,
    clock: limits.clock ?? clock,
    random: { bytes: (length) => randomBytes(length) },
    limits: { ...defaultSshLimits, ...limits },
    hostKeys,
    hostCertificates: {
      current: () => limits.certificates?.(hostKeys) ?? [],
      onChange: () => undefined,
    },
    noAuth: limits.noAuth ?? false,
  });
  const { port } = await listener.listen('127.0.0.1', await pickPort());
  const children = new Set<ChildProcessWithoutNullStreams>();
  const settings = [
    'IdentitiesOnly=yes',
    'IdentityAgent=none',
    'BatchMode=yes',
    'StrictHostKeyChecking=no',
    `UserKnownHostsFile=${join(directory, 'known')}`,
    'LogLevel=ERROR',
  ];
  const sshOptions = (keyFile: string): readonly string[] => [
    '-F',
    '/dev/null',
    '-p',
    String(port),
    '-i',
    keyFile,
    ...settings.map((setting) => `-o${setting}`),
  ];
  const start = (keyFile: string, ...rest: readonly string[]): ChildProcessWithoutNullStreams => {
    const child = spawn('ssh', [...sshOptions(keyFile), ...rest]);
    children.add(child);
    child.once('close', () => children.delete(child));
    child.stdin.on('error', () => undefined);
    return child;
  };
  return {
    directory,
    listener,
    port,
    hostKeys,
    audited,
    logged,
    addKey(name, options) {
      const file = join(directory, name);
      execFileSync('ssh-keygen', ['-q', '-N', '', '-f', file, ...options.keygen]);
      const { key } = parseSshPublicKeyLine(readFileSync(`${file}.pub`, 'utf8'));
      if (options.stranger !== true) owners.set(key.fingerprint, options.user ?? 'alice');
      return file;
    },
    removeKeys: () => owners.clear(),
    sshOptions,
    start,
    ssh(keyFile, ...rest) {
      const child = start(keyFile, ...rest);
      child.stdin.end();
      return collect(child);
    },
    async close() {
      await listener.drain(0);
      for (const child of children) child.kill('SIGKILL');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Everything that a process says, and how it ends. */
export function collect(child: ChildProcessWithoutNullStreams): Promise<Finished> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode) => {
      resolve({
        stdout: Buffer.concat(stdout),
        stderr: Buffer.concat(stderr).toString('utf8'),
        exitCode,
      });
    });
  });
}

const unused = (): never => {
  throw new Error('not used over SSH');
};

function accountsOf(owners: ReadonlyMap<string, string>): Accounts {
  return {
    async authenticateKey(blob) {
      const fingerprint = sshFingerprint(blob);
      const name = owners.get(fingerprint);
      if (name === undefined) return undefined;
      return {
        kind: 'user',
        name,
        admin: false,
        canCreate: true,
        via: { type: 'key', fingerprint },
      };
    },
    createUser: unused,
    listUsers: unused,
    getUser: unused,
    setUserDisabled: unused,
    addKey: unused,
    listKeys: unused,
    removeKey: unused,
    certifiedUser: unused,
    addDeployKey: unused,
    listDeployKeys: unused,
    removeDeployKey: unused,
    createToken: unused,
    listTokens: unused,
    revokeToken: unused,
    authenticateToken: unused,
  };
}
