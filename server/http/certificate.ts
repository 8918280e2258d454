import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Clock, Logger } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';

export interface CertificatePair {
  /** PEM: the server's certificate, then those between it and the authority. */
  readonly cert: Buffer;
  /** PEM, without a passphrase. */
  readonly key: Buffer;
}

/** A certificate with its key that may change while the server runs. */
export interface CertificateSource {
  pair(): CertificatePair;
  /** Called with each new pair that is good. */
  onChange(listener: (pair: CertificatePair) => void): void;
}

export interface FileCertificate extends CertificateSource {
  /** When the certificate in use ends, in ms since 1970. */
  notAfterMs(): number;
  /** What is wrong with the files now (the pair before them is still in use) or with the certificate in use. */
  problem(): string | undefined;
  /** Looks at the files now. Never rejects. */
  check(): Promise<void>;
  close(): void;
}

/** A certificate with its chain, or a key, is some kilobytes. */
const maxFileBytes = 1024 * 1024;

/**
 * Reads certificate and key from files, and looks every `checkMs` whether their content changed. Reading rather than
 * watching: Kubernetes changes them by exchanging a link two directories up, and network file systems tell of nothing.
 * A new pair is taken only if it fits together and has not ended; else the old one stays in use, the log says why, and
 * so does `problem()`. Rejects with `failed-precondition` when the first pair cannot be used.
 */
export async function openCertificate(options: {
  readonly certFile: string;
  readonly keyFile: string;
  readonly checkMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
}): Promise<FileCertificate> {
  const { certFile, keyFile } = options;
  let pair: CertificatePair;
  let parsed: X509Certificate;
  try {
    pair = await readPair(certFile, keyFile);
    parsed = checkPair(pair);
  } catch (error) {
    throw new QuorateError(
      'failed-precondition',
      `tls.cert (${certFile}) and tls.key (${keyFile}) cannot be used: ${messageOf(error)}`,
      { cause: error },
    );
  }
  return new WatchedPair(options, pair, parsed);
}

class WatchedPair implements FileCertificate {
  readonly #options: Parameters<typeof openCertificate>[0];
  readonly #listeners: ((pair: CertificatePair) => void)[] = [];
  readonly #closed = new AbortController();
  #pair: CertificatePair;
  #notAfterMs: number;
  /** What was last read and refused, so that it is told once. */
  #refused: CertificatePair | undefined;
  #problem: string | undefined;

  constructor(
    options: Parameters<typeof openCertificate>[0],
    pair: CertificatePair,
    parsed: X509Certificate,
  ) {
    this.#options = options;
    this.#pair = pair;
    this.#notAfterMs = Date.parse(parsed.validTo);
    if (this.#ended(this.#notAfterMs)) {
      options.logger.warn(
        { component: 'tls', notAfter: parsed.validTo },
        'the certificate has ended',
      );
    }
    void this.#watch();
  }

  pair(): CertificatePair {
    return this.#pair;
  }

  onChange(listener: (pair: CertificatePair) => void): void {
    this.#listeners.push(listener);
  }

  notAfterMs(): number {
    return this.#notAfterMs;
  }

  problem(): string | undefined {
    if (this.#problem !== undefined) return this.#problem;
    return this.#ended(this.#notAfterMs) ? 'the certificate has ended' : undefined;
  }

  async check(): Promise<void> {
    const { certFile, keyFile } = this.#options;
    let pair: CertificatePair | undefined;
    try {
      pair = await readPair(certFile, keyFile);
      if (same(pair, this.#pair)) {
        this.#well();
        return;
      }
      if (this.#refused !== undefined && same(pair, this.#refused)) return;
      const parsed = checkPair(pair);
      if (this.#ended(Date.parse(parsed.validTo))) throw new Error('the certificate has ended');
      if (this.#closed.signal.aborted) return;
      for (const listener of this.#listeners) listener(pair);
      this.#pair = pair;
      this.#notAfterMs = Date.parse(parsed.validTo);
      this.#well();
      this.#options.logger.info(
        { component: 'tls', subject: parsed.subject, notAfter: parsed.validTo },
        'a new certificate is in use',
      );
    } catch (error) {
      this.#refuse(error, pair);
    }
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
      await this.check();
    }
  }

  #refuse(error: unknown, pair: CertificatePair | undefined): void {
    const problem = `the new certificate is not used: ${messageOf(error)}`;
    if (this.#problem !== problem) {
      this.#options.logger.error(
        { component: 'tls', err: error },
        'the new certificate or key cannot be used; the old pair stays in use',
      );
    }
    this.#refused = pair;
    this.#problem = problem;
  }

  #well(): void {
    this.#refused = undefined;
    this.#problem = undefined;
  }

  #ended(notAfterMs: number): boolean {
    return notAfterMs <= this.#options.clock.nowMs();
  }
}

async function readPair(certFile: string, keyFile: string): Promise<CertificatePair> {
  const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)]);
  if (cert.length > maxFileBytes || key.length > maxFileBytes)
    throw new Error('a file is too large');
  return { cert, key };
}

/** Throws when the two cannot be used together. Answers the server's own certificate. */
function checkPair({ cert, key }: CertificatePair): X509Certificate {
  const parsed = new X509Certificate(cert);
  if (!parsed.checkPrivateKey(createPrivateKey(key))) {
    throw new Error('the key does not belong to the certificate');
  }
  createSecureContext({ cert, key });
  return parsed;
}

function same(left: CertificatePair, right: CertificatePair): boolean {
  return left.cert.equals(right.cert) && left.key.equals(right.key);
}

/** OpenSSL's errors and those of the file system; neither holds anything of a key. */
function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
