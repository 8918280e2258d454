import { open } from 'node:fs/promises';
import path from 'node:path';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import { checkHostCertificate } from './host-certificate-check.js';
import {
  certificateFileName,
  readHostCertificate,
  timeProblem,
  timeText,
  type HostCertificate,
} from './host-certificate.js';
import type { HostKey } from './host-keys.js';

/** The certificates of the host keys, which may change while the server runs. */
export interface HostCertificates {
  /** Those that are good now, in the order of the host keys. */
  current(): readonly HostCertificate[];
  /** Called when others are good. */
  onChange(listener: () => void): void;
  /** What is wrong with a file, or with a certificate that was in use; undefined: nothing. */
  problem(): string | undefined;
  /** All host keys, with or without a certificate. */
  report(): readonly HostKeyReport[];
  /** Looks at the files now. Never rejects. */
  check(): Promise<void>;
  close(): void;
}

export interface HostCertificatesOptions {
  readonly hostKeys: readonly HostKey[];
  /** Where `ssh_host_ed25519_key-cert.pub` and its like may lie. */
  readonly directory: string;
  readonly checkMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** For tests. */
  readonly tryOut?: typeof checkHostCertificate;
}

/** More than any certificate takes. */
const maxFileBytes = 256 * 1024;

/**
 * Reads the certificates beside the host keys, and looks every `checkMs` whether they changed: short-lived ones are
 * renewed while the server runs. As with sshd, a file that cannot be used does not keep the server from starting: the
 * log and `problem()` say what is wrong, and the host key goes on without it. A certificate in use stays so while it is
 * valid if a bad one takes its file; without the file it goes.
 */
export async function openHostCertificates(
  options: HostCertificatesOptions,
): Promise<HostCertificates> {
  const certificates = new WatchedCertificates(options);
  await certificates.check();
  void certificates.watch();
  return certificates;
}

/** What is known of the certificate of one host key. */
interface State {
  /** The file as it was last judged; undefined: there was none. */
  readonly text: string | undefined;
  readonly usable: HostCertificate | undefined;
  readonly problem: string | undefined;
}

class WatchedCertificates implements HostCertificates {
  readonly #options: HostCertificatesOptions;
  readonly #states = new Map<HostKey, State>();
  readonly #listeners: (() => void)[] = [];
  readonly #closed = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: HostCertificatesOptions) {
    this.#options = options;
  }

  current(): readonly HostCertificate[] {
    return this.#options.hostKeys.flatMap((key) => this.#states.get(key)?.usable ?? []);
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  problem(): string | undefined {
    const problems = [...this.#states].flatMap(([key, { problem }]) =>
      problem === undefined ? [] : [`${certificateFileName(key)}: ${problem}`],
    );
    return problems.length === 0 ? undefined : problems.join('; ');
  }

  report(): readonly HostKeyReport[] {
    return this.#options.hostKeys.map((key) => {
      const { usable, problem } = this.#states.get(key) ?? {};
      const { type, fingerprint, publicLine: publicKey } = key;
      const certificate = usable === undefined ? null : certificateReport(usable);
      return { type, fingerprint, publicKey, certificate, problem: problem ?? null };
    });
  }

  check(): Promise<void> {
    this.#running = this.#running.then(() => this.#checkAll());
    return this.#running;
  }

  close(): void {
    this.#closed.abort();
  }

  async watch(): Promise<void> {
    const { clock, checkMs } = this.#options;
    const { signal } = this.#closed;
    for (;;) {
      await clock.sleep(checkMs, signal);
      if (signal.aborted) return;
      await this.check();
    }
  }

  async #checkAll(): Promise<void> {
    const before = this.current();
    for (const key of this.#options.hostKeys) {
      const known = this.#states.get(key);
      const state = await this.#judge(key, known);
      this.#states.set(key, state);
      this.#tell(key, state, known);
    }
    const after = this.current();
    const same = after.length === before.length && after.every((one, at) => one === before[at]);
    if (!same && !this.#closed.signal.aborted) for (const listener of this.#listeners) listener();
  }

  async #judge(key: HostKey, known: State | undefined): Promise<State> {
    const { clock, directory, tryOut = checkHostCertificate } = this.#options;
    const nowMs = clock.nowMs();
    const inUse = known?.usable;
    const good = inUse && timeProblem(inUse.content, nowMs) === undefined ? inUse : undefined;
    let text: string | undefined;
    try {
      text = await readBounded(path.join(directory, certificateFileName(key)));
      if (text === undefined) return { text, usable: undefined, problem: undefined };
      if (known !== undefined && text === known.text && good !== undefined) return known;
      const usable = readHostCertificate(text, { hostKey: key, nowMs });
      await tryOut(usable, { clock }).catch((cause: unknown) => {
        throw new Error(`${ssh2Differs}${messageOf(cause)}`, { cause });
      });
      return { text, usable, problem: undefined };
    } catch (error) {
      return { text, usable: good, problem: messageOf(error) };
    }
  }

  #tell(key: HostKey, { usable, problem }: State, known: State | undefined): void {
    const { directory, logger } = this.#options;
    const fields = { component: 'ssh', file: path.join(directory, certificateFileName(key)) };
    if (problem !== undefined && problem !== known?.problem) {
      const rest = usable === undefined ? 'the plain host key goes on' : 'the one before stays';
      logger.error({ ...fields, problem }, `an SSH host certificate is not offered: ${rest}`);
    }
    if (usable !== undefined && usable !== known?.usable) {
      logger.info({ ...fields, ...factsOf(usable) }, 'SSH host certificate');
    } else if (problem === undefined && usable === undefined && known?.usable !== undefined) {
      logger.warn(fields, 'an SSH host certificate is gone: the plain host key goes on');
    }
  }
}

/** In front of what the try in memory found. */
const ssh2Differs =
  'the installed ssh2 works unlike the one that this was made for (install the version of package-lock.json, as npm ci does): ';

/** For the log. */
function factsOf({ hostKey, content }: HostCertificate): object {
  return {
    type: hostKey.type,
    principals: content.principals,
    key_id: content.keyId,
    serial: String(content.serial),
    authority: content.authority.fingerprint,
    valid_until: timeText(content.validBefore),
  };
}

/** A host key and its certificate, for whoever administers the server. */
export interface HostKeyReport {
  readonly type: string;
  readonly fingerprint: string;
  /** One line as in a `.pub` file. */
  readonly publicKey: string;
  /** The one on offer. */
  readonly certificate: {
    readonly keyId: string;
    readonly serial: string;
    readonly principals: readonly string[];
    /** Fingerprint. */
    readonly authority: string;
    /** Null: it never ends. */
    readonly validUntil: string | null;
  } | null;
  /** Why the file that should hold one is not used. */
  readonly problem: string | null;
}

/** A line for `quorate status`; none without a certificate and without a problem. */
export function describeHostCertificates(
  certificates: HostCertificates,
): Readonly<Record<string, string>> {
  const parts = certificates.current().map(({ hostKey, content }) => {
    const names = content.principals.length === 0 ? 'any name' : content.principals.join(',');
    return `${hostKey.type} for ${names} until ${timeText(content.validBefore)}`;
  });
  const problem = certificates.problem();
  if (problem !== undefined) parts.push(`not offered: ${problem}`);
  return parts.length === 0 ? {} : { 'SSH host certificates': parts.join('; ') };
}

function certificateReport({ content }: HostCertificate): HostKeyReport['certificate'] {
  const until = timeText(content.validBefore);
  return {
    keyId: content.keyId,
    serial: String(content.serial),
    principals: content.principals,
    authority: content.authority.fingerprint,
    validUntil: until === 'forever' ? null : until,
  };
}

async function readBounded(file: string): Promise<string | undefined> {
  try {
    const handle = await open(file);
    try {
      const { size } = await handle.stat();
      if (size > maxFileBytes) throw new Error('the file is too large');
      return await handle.readFile('utf8');
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
