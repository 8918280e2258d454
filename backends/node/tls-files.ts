import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Clock, Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';

/** PEM. Certificate and key come together, or not at all. */
export interface TlsMaterial {
  readonly ca: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

export interface TlsPaths {
  readonly ca: string;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** A certificate with its key, PEM: for those who are not asked for a certificate themselves. */
export type TlsPair = Required<Pick<TlsMaterial, 'cert' | 'key'>>;

interface Watching {
  /** Settings' prefix, for messages: `cluster.tls`, `etcd`, `tls`. */
  readonly name: string;
  readonly checkMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface TlsFilesOptions extends Watching {
  readonly paths: TlsPaths;
}

export interface TlsPairOptions extends Watching {
  readonly paths: { readonly cert: string; readonly key: string };
}

/** Authorities, or a certificate with its chain, are some kilobytes. */
const maxFileBytes = 1024 * 1024;

/**
 * By what this process and other machines know each other, from files that change while it runs: they are read every
 * `checkMs`, since exchanged links (Kubernetes) and network file systems tell of nothing. What fits together and is good
 * now is handed to the listeners, for new connections; what does not is not taken, and the log and `problem()` say so.
 */
export class TlsFiles<Material extends Partial<TlsMaterial> = TlsMaterial> {
  readonly #options: Watching;
  readonly #readFiles: () => Promise<Material>;
  readonly #listeners = new Set<(material: Material) => void>();
  readonly #closed = new AbortController();
  #current: Material;
  #problem: string | undefined;

  private constructor(options: Watching, first: Material, readFiles: () => Promise<Material>) {
    this.#options = options;
    this.#current = first;
    this.#readFiles = readFiles;
    const problem = this.problem();
    if (problem !== undefined)
      options.logger.warn({ component: 'tls', files: options.name }, problem);
    void this.#watch();
  }

  /** With authorities. Rejects with `invalid-argument` when the files cannot be used. */
  static open(options: TlsFilesOptions): Promise<TlsFiles> {
    return TlsFiles.#open(options, () => readTrust(options.paths));
  }

  /** A certificate and its key alone. Rejects with `invalid-argument` when they cannot be used. */
  static openPair(options: TlsPairOptions): Promise<TlsFiles<TlsPair>> {
    return TlsFiles.#open(options, () => readPair(options.paths));
  }

  static async #open<Read extends Partial<TlsMaterial>>(
    options: Watching & { readonly paths: Partial<TlsPaths> },
    read: () => Promise<Read>,
  ): Promise<TlsFiles<Read>> {
    try {
      const first = await read();
      judge(first);
      return new TlsFiles(options, first, read);
    } catch (cause) {
      throw new QuorateError('invalid-argument', whyUnusable(options, cause), { cause });
    }
  }

  get current(): Material {
    return this.#current;
  }

  /** Milliseconds since 1970; undefined without a certificate of our own. */
  get notAfterMs(): number | undefined {
    return notAfterMsOf(this.#current);
  }

  /** What is wrong with the files now (those before are still in use), or with the certificate in use. */
  problem(): string | undefined {
    if (this.#problem !== undefined) return this.#problem;
    return this.#outOfTime(this.#current);
  }

  /** Called with what is new and good. Returns how to stop that. */
  onChange(listener: (material: Material) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    this.#closed.abort();
  }

  async #watch(): Promise<void> {
    const { clock, checkMs } = this.#options;
    const { signal } = this.#closed;
    for (;;) {
      await clock.sleep(checkMs, signal);
      if (signal.aborted) return;
      await this.#check();
    }
  }

  async #check(): Promise<void> {
    const { name, logger } = this.#options;
    try {
      const read = await this.#readFiles();
      if (this.#closed.signal.aborted) return;
      if (same(read, this.#current)) {
        this.#problem = undefined;
        return;
      }
      // What was written half will be whole when it is looked at again, and what is not good yet will be.
      judge(read);
      const outOfTime = this.#outOfTime(read);
      if (outOfTime !== undefined) throw new Error(outOfTime);
      this.#current = read;
      this.#problem = undefined;
      logger.info({ component: 'tls', files: name }, 'new certificates are in use');
      for (const listener of this.#listeners) listener(read);
    } catch (error) {
      const problem = `the new files are not used: ${messageOf(error)}`;
      if (problem !== this.#problem) {
        logger.error(
          { component: 'tls', files: name, err: error },
          'new certificates are not used; those before stay in use',
        );
      }
      this.#problem = problem;
    }
  }

  /** Undefined: everybody whose clock is right takes it. */
  #outOfTime(material: Material): string | undefined {
    const nowMs = this.#options.clock.nowMs();
    if ((notAfterMsOf(material) ?? Infinity) <= nowMs) return 'the certificate has ended';
    const notBeforeMs = notBeforeMsOf(material) ?? -Infinity;
    if (notBeforeMs <= nowMs) return undefined;
    return `the certificate is not good before ${new Date(notBeforeMs).toISOString()}`;
  }
}

function notAfterMsOf({ cert }: Partial<TlsMaterial>): number | undefined {
  return cert === undefined ? undefined : Date.parse(new X509Certificate(cert).validTo);
}

function notBeforeMsOf({ cert }: Partial<TlsMaterial>): number | undefined {
  return cert === undefined ? undefined : Date.parse(new X509Certificate(cert).validFrom);
}

async function readTrust({ ca, cert, key }: TlsPaths): Promise<TlsMaterial> {
  return {
    ca: await readSmall('ca', ca),
    ...(cert === undefined ? {} : { cert: await readSmall('cert', cert) }),
    ...(key === undefined ? {} : { key: await readSmall('key', key) }),
  };
}

async function readPair({ cert, key }: TlsPairOptions['paths']): Promise<TlsPair> {
  return { cert: await readSmall('cert', cert), key: await readSmall('key', key) };
}

class UnreadableFile extends Error {
  readonly part: keyof TlsPaths;

  constructor(part: keyof TlsPaths, file: string, cause: unknown) {
    const code = cause instanceof Error && 'code' in cause ? ` (${String(cause.code)})` : '';
    super(`the file ${file} cannot be read${code}`, { cause });
    this.part = part;
  }
}

function whyUnusable(
  { name, paths }: { readonly name: string; readonly paths: Partial<TlsPaths> },
  cause: unknown,
): string {
  if (cause instanceof UnreadableFile) return `${name}.${cause.part}: ${cause.message}`;
  const parts = paths.ca === undefined ? `${name}.cert` : `${name}.ca, .cert`;
  const files = [paths.ca, paths.cert, paths.key].filter((file) => file !== undefined).join(', ');
  return `${parts} and .key (${files}) cannot be used: ${messageOf(cause)}`;
}

async function readSmall(part: keyof TlsPaths, file: string): Promise<Buffer> {
  const content = await readFile(file).catch((cause: unknown) => {
    throw new UnreadableFile(part, file, cause);
  });
  if (content.length > maxFileBytes) throw new Error(`${file} is too large`);
  return content;
}

/** Throws when they cannot be used together. */
function judge({ ca, cert, key }: Partial<TlsMaterial>): void {
  if ((cert === undefined) !== (key === undefined)) {
    throw new Error('a certificate and its key belong together');
  }
  // `createSecureContext` passes over what is no certificate.
  if (ca !== undefined) void new X509Certificate(ca);
  if (cert !== undefined && key !== undefined) {
    if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
      throw new Error('the key does not belong to the certificate');
    }
  }
  createSecureContext({ ca, cert, key });
}

function same(left: Partial<TlsMaterial>, right: Partial<TlsMaterial>): boolean {
  return equal(left.ca, right.ca) && equal(left.cert, right.cert) && equal(left.key, right.key);
}

function equal(left: Buffer | undefined, right: Buffer | undefined): boolean {
  return left === undefined || right === undefined ? left === right : left.equals(right);
}

/** OpenSSL's errors and those of the file system; neither holds anything of a key. */
function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
