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

type Listener = (material: TlsMaterial) => void;

export interface TlsFilesOptions {
  /** Settings' prefix, for messages: `cluster.tls`, `etcd`. */
  readonly name: string;
  readonly paths: TlsPaths;
  readonly checkMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Authorities, or a certificate with its chain, are some kilobytes. */
const maxFileBytes = 1024 * 1024;

/**
 * By what this process and other machines know each other, from files that change while it runs: they are read every
 * `checkMs`, since exchanged links (Kubernetes) and network file systems tell of nothing. What fits together is handed
 * to the listeners, for new connections; what does not is not taken, and the log and `problem()` say so.
 */
export class TlsFiles {
  readonly #options: TlsFilesOptions;
  readonly #listeners = new Set<Listener>();
  readonly #closed = new AbortController();
  #current: TlsMaterial;
  /** What was read last, good or not, so that it is told once. */
  #read: TlsMaterial;
  #problem: string | undefined;

  private constructor(options: TlsFilesOptions, first: TlsMaterial) {
    this.#options = options;
    this.#current = first;
    this.#read = first;
    void this.#watch();
  }

  /** Rejects with `invalid-argument` when the files cannot be used. */
  static async open(options: TlsFilesOptions): Promise<TlsFiles> {
    try {
      return new TlsFiles(options, await readMaterial(options.paths));
    } catch (cause) {
      throw new QuorateError('invalid-argument', whyUnusable(options, cause), { cause });
    }
  }

  get current(): TlsMaterial {
    return this.#current;
  }

  /** Milliseconds since 1970; undefined without a certificate of our own. */
  get notAfterMs(): number | undefined {
    const { cert } = this.#current;
    return cert === undefined ? undefined : Date.parse(new X509Certificate(cert).validTo);
  }

  /** What is wrong with the files now (those before are still in use), or with the certificate in use. */
  problem(): string | undefined {
    if (this.#problem !== undefined) return this.#problem;
    const { notAfterMs = Infinity } = this;
    return notAfterMs <= this.#options.clock.nowMs() ? 'the certificate has ended' : undefined;
  }

  /** Called with what is new and good. Returns how to stop that. */
  onChange(listener: Listener): () => void {
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
    const { name, logger, paths } = this.#options;
    try {
      const read = await readFiles(paths);
      if (same(read, this.#current)) {
        this.#read = read;
        this.#problem = undefined;
        return;
      }
      // Judged once; what was written half will be whole when it is looked at again.
      if (same(read, this.#read) && this.#problem !== undefined) return;
      this.#read = read;
      judge(read);
      this.#current = read;
      this.#problem = undefined;
      logger.info({ component: 'tls', files: name }, 'new certificates are in use');
      for (const listener of this.#listeners) listener(read);
    } catch (error) {
      const problem = `the new files are not used: ${messageOf(error)}`;
      if (problem !== this.#problem) {
        logger.error(
          { component: 'tls', files: name, err: error },
          'new certificates are not used',
        );
      }
      this.#problem = problem;
    }
  }
}

async function readMaterial(paths: TlsPaths): Promise<TlsMaterial> {
  const material = await readFiles(paths);
  judge(material);
  return material;
}

async function readFiles({ ca, cert, key }: TlsPaths): Promise<TlsMaterial> {
  const material = {
    ca: await readSmall('ca', ca),
    ...(cert === undefined ? {} : { cert: await readSmall('cert', cert) }),
    ...(key === undefined ? {} : { key: await readSmall('key', key) }),
  };
  return material;
}

class UnreadableFile extends Error {
  readonly part: keyof TlsPaths;

  constructor(part: keyof TlsPaths, file: string, cause: unknown) {
    const code = cause instanceof Error && 'code' in cause ? ` (${String(cause.code)})` : '';
    super(`the file ${file} cannot be read${code}`, { cause });
    this.part = part;
  }
}

function whyUnusable({ name, paths }: TlsFilesOptions, cause: unknown): string {
  if (cause instanceof UnreadableFile) return `${name}.${cause.part}: ${cause.message}`;
  const files = [paths.ca, paths.cert, paths.key].filter((file) => file !== undefined).join(', ');
  return `${name}.ca, .cert and .key (${files}) cannot be used: ${messageOf(cause)}`;
}

async function readSmall(part: keyof TlsPaths, file: string): Promise<Buffer> {
  const content = await readFile(file).catch((cause: unknown) => {
    throw new UnreadableFile(part, file, cause);
  });
  if (content.length > maxFileBytes) throw new Error(`${file} is too large`);
  return content;
}

/** Throws when they cannot be used together. */
function judge({ ca, cert, key }: TlsMaterial): void {
  if ((cert === undefined) !== (key === undefined)) {
    throw new Error('a certificate and its key belong together');
  }
  // `createSecureContext` passes over what is no certificate.
  void new X509Certificate(ca);
  if (cert === undefined || key === undefined) {
    createSecureContext({ ca });
    return;
  }
  if (!new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
    throw new Error('the key does not belong to the certificate');
  }
  createSecureContext({ ca, cert, key });
}

function same(left: TlsMaterial, right: TlsMaterial): boolean {
  return equal(left.ca, right.ca) && equal(left.cert, right.cert) && equal(left.key, right.key);
}

function equal(left: Buffer | undefined, right: Buffer | undefined): boolean {
  return left === undefined || right === undefined ? left === right : left.equals(right);
}

/** OpenSSL's errors and those of the file system; neither holds anything of a key. */
function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
