import type { Oid, RefCommand } from './objects.js';

/** Public keys whose signatures count. */
export interface TrustedSigners {
  /** Lines of an `allowed_signers` file, as ssh-keygen(1) reads it. */
  readonly ssh: string;
  /** OpenPGP keys, binary, one behind the other: a keyring as gpg(1) reads it. */
  readonly openpgp: Uint8Array;
}

/**
 * A question about one ref of a prepared push: what the history of its new value holds that was not judged before.
 * That is what its old value does not reach; for a new ref, what no ref that matches `covered` reaches at the basis.
 * So nothing comes into a protected ref by way of an unprotected one.
 */
export interface Inspection {
  readonly command: RefCommand;
  /** Pattern of refs whose history counts as judged (`matchesGlob`). */
  readonly covered: string;
  /** More history that counts as judged: new values of this push. */
  readonly judged: readonly Oid[];
  /** Tell each new commit. */
  readonly commits: boolean;
  /** Tell each path that a new commit adds or changes. */
  readonly files: boolean;
  /** Check the signatures of the commits. */
  readonly signers?: TrustedSigners;
  readonly signal: AbortSignal;
}

export interface InspectedCommit {
  readonly type: 'commit';
  readonly oid: Oid;
  readonly parents: readonly Oid[];
  /** UTF-8; what is not is replaced. Undefined for a commit of more than 1 MiB. */
  readonly message: string | undefined;
  /** Undefined unless it was asked for. `unsigned`: none. `refused`: not good, or by a key that nobody registered. */
  readonly signature: 'good' | 'unsigned' | 'refused' | undefined;
}

export interface InspectedFile {
  readonly type: 'file';
  readonly commit: Oid;
  readonly path: string;
  /** Bytes, inflated; 0 for a submodule. */
  readonly sizeBytes: number;
}

/** What an inspection tells, as it finds it. */
export type PushFact = InspectedCommit | InspectedFile;

/** Asks about a prepared push; commits first, newest first, then files. Ending the iteration early ends the work.
 * Errors: `invalid-argument` (the new value is no commit and no tag of one), `resource-exhausted` (more than 100,000
 * new commits, or 10,000 whose signatures are to be checked), `deadline-exceeded` (git took longer than 5 minutes),
 * `cancelled`, `unavailable`, `storage-failure`.
 */
export type Inspect = (inspection: Inspection) => AsyncIterable<PushFact>;
