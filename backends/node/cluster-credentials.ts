import { readFile } from 'node:fs/promises';
import { QuorateError } from '../contract/errors.js';
import { TlsFiles, type TlsFilesOptions } from './tls-files.js';

/** By what the members of a cluster know each other: one of the two, or both. */
export interface ClusterCredentials {
  /** Shared by all members. Proven, never sent (`request-signature.ts`). */
  readonly secret?: Buffer;
  /** Mutual TLS: each side wants a certificate of this authority from the other. */
  readonly tls?: Pick<TlsFiles, 'current' | 'onChange'>;
}

/** Credentials from files; those for TLS are looked at again and again. */
export interface LoadedCredentials extends ClusterCredentials {
  readonly tls?: TlsFiles;
}

export interface CredentialFiles {
  readonly secretFile?: string | undefined;
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
}

/** Half of what SHA-256 can use; `openssl rand -hex 32` gives 64 bytes. */
const minSecretBytes = 16;
const maxFileBytes = 64 * 1024;

const remedy =
  'give every member of the cluster the same secret (openssl rand -hex 32 > cluster-secret; --cluster-secret-file cluster-secret), or certificates of one authority (cluster.tls.ca, cluster.tls.cert, cluster.tls.key)';

/**
 * Reads what was configured. Throws `invalid-argument` when that is nothing: the internal API is never open.
 * White space around the secret does not count, since editors and `echo` add it.
 */
export async function loadClusterCredentials(
  files: CredentialFiles,
  watch: Pick<TlsFilesOptions, 'checkMs' | 'clock' | 'logger'>,
): Promise<LoadedCredentials> {
  const { secretFile, caFile, certFile, keyFile } = files;
  const tlsFiles = [caFile, certFile, keyFile];
  const given = tlsFiles.filter((file) => file !== undefined).length;
  if (secretFile === undefined && given === 0) {
    throw new QuorateError(
      'invalid-argument',
      `members of a cluster must know each other: ${remedy}`,
    );
  }
  if (given > 0 && given < tlsFiles.length) {
    throw new QuorateError(
      'invalid-argument',
      'TLS within the cluster needs cluster.tls.ca, cluster.tls.cert and cluster.tls.key',
    );
  }
  const secret = secretFile === undefined ? undefined : await readClusterSecret(secretFile);
  const tls =
    caFile === undefined
      ? undefined
      : await TlsFiles.open({
          ...watch,
          name: 'cluster.tls',
          paths: { ca: caFile, cert: certFile, key: keyFile },
        });
  return {
    ...(secret === undefined ? {} : { secret }),
    ...(tls === undefined ? {} : { tls }),
  };
}

/** The secret of a cluster, from its file. Throws `invalid-argument`. */
export async function readClusterSecret(file: string): Promise<Buffer> {
  const secret = Buffer.from((await readSmallFile(file)).toString('utf8').trim());
  if (secret.length >= minSecretBytes) return secret;
  throw new QuorateError(
    'invalid-argument',
    `the cluster secret in ${file} is shorter than ${minSecretBytes} characters: openssl rand -hex 32 makes a good one`,
  );
}

async function readSmallFile(file: string): Promise<Buffer> {
  let content: Buffer;
  try {
    content = await readFile(file);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown';
    throw new QuorateError(
      'invalid-argument',
      `the cluster secret in ${file} cannot be read (${code}): --cluster-secret-file names the file with the secret that all members have`,
      { cause },
    );
  }
  if (content.length > maxFileBytes) {
    throw new QuorateError('invalid-argument', `${file} is too large to be a cluster secret`);
  }
  return content;
}
