import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface CertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

const run = promisify(execFile);
const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout'];

/** An authority of one test, which signs certificates for loopback. Needs `openssl`. */
export class TestAuthority {
  readonly caFile: string;
  readonly #directory: string;
  readonly #keyFile: string;
  #serial = 1;

  private constructor(directory: string, name: string) {
    this.#directory = directory;
    this.caFile = join(directory, `${name}.pem`);
    this.#keyFile = join(directory, `${name}.key`);
  }

  static async make(directory: string, name = 'authority'): Promise<TestAuthority> {
    const authority = new TestAuthority(directory, name);
    await run('openssl', [
      'req',
      '-x509',
      ...newKey,
      authority.#keyFile,
      '-days',
      '30',
      '-subj',
      `/CN=${name}`,
      '-out',
      authority.caFile,
    ]);
    return authority;
  }

  /** For servers and clients on 127.0.0.1 and localhost. */
  async sign(name: string): Promise<CertificateFiles> {
    const keyFile = join(this.#directory, `${name}.key`);
    const certFile = join(this.#directory, `${name}.pem`);
    const request = join(this.#directory, `${name}.csr`);
    await run('openssl', [
      'req',
      ...newKey,
      keyFile,
      '-subj',
      `/CN=${name}`,
      '-addext',
      'subjectAltName=DNS:localhost,IP:127.0.0.1',
      '-out',
      request,
    ]);
    this.#serial += 1;
    await run('openssl', [
      'x509',
      '-req',
      '-in',
      request,
      '-days',
      '30',
      '-copy_extensions',
      'copy',
      '-CA',
      this.caFile,
      '-CAkey',
      this.#keyFile,
      '-set_serial',
      String(this.#serial),
      '-out',
      certFile,
    ]);
    return { certFile, keyFile };
  }
}
