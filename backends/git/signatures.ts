import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TrustedSigners } from '../contract/inspection.js';
import type { Oid } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { gitOver, type HistorySource, tookTooLong } from './history-command.js';

/** Checks signatures of commits with git, which asks ssh-keygen and gpg. */
export interface SignatureCheck {
  /** Those of `oids` that carry a good signature by a trusted key. */
  good(oids: readonly Oid[]): Promise<ReadonlySet<Oid>>;
  /** Removes the keyrings. */
  close(): Promise<void>;
}

/** A program that is there and never verifies anything. */
const noProgram = 'false';

/**
 * The keyrings lie in a directory of their own below `scratchParent` until `close`. Each format is tried by itself,
 * with the other's program taken away: what git takes for trust differs. An SSH key that is not on the list verifies
 * with trust `undefined`, so SSH wants `fully`; a key in an OpenPGP keyring has no trust but being in it, which is
 * all that we ask, since the keyring holds registered keys only.
 */
export async function createSignatureCheck(options: {
  readonly inspection: HistorySource;
  readonly git: GitRunner;
  readonly signers: TrustedSigners;
  readonly scratchParent: string;
}): Promise<SignatureCheck> {
  const { inspection, git, signers, scratchParent } = options;
  await mkdir(scratchParent, { recursive: true, mode: 0o700 });
  const scratch = await mkdtemp(join(scratchParent, 'signers-'));
  const allowedSigners = join(scratch, 'allowed_signers');
  await writeFile(allowedSigners, signers.ssh, { mode: 0o600 });
  // The form that gpg reads without having been asked to import anything.
  await writeFile(join(scratch, 'pubring.gpg'), signers.openpgp, { mode: 0o600 });
  const formats = [
    {
      'gpg.program': noProgram,
      'gpg.ssh.allowedSignersFile': allowedSigners,
      'gpg.minTrustLevel': 'fully',
    },
    ...(signers.openpgp.length === 0
      ? []
      : [
          {
            'gpg.ssh.program': noProgram,
            'gpg.program': 'gpg',
            'gpg.minTrustLevel': 'undefined',
          },
        ]),
  ];

  const allGood = async (
    oids: readonly Oid[],
    config: Record<string, string>,
  ): Promise<boolean> => {
    const command = gitOver(inspection, ['verify-commit', '--', ...oids]);
    const { exitCode } = await git.run({
      ...command,
      env: { ...command.env, GNUPGHOME: scratch },
      config: { ...config, 'gpg.x509.program': noProgram },
    });
    if (exitCode === null) throw tookTooLong();
    return exitCode === 0;
  };

  /** By halving: one run when all are good. */
  const goodOf = async (
    oids: readonly Oid[],
    config: Record<string, string>,
  ): Promise<readonly Oid[]> => {
    if (oids.length === 0 || (await allGood(oids, config))) return oids;
    if (oids.length === 1) return [];
    const half = Math.ceil(oids.length / 2);
    const first = await goodOf(oids.slice(0, half), config);
    return [...first, ...(await goodOf(oids.slice(half), config))];
  };

  return {
    async good(oids) {
      const good = new Set<Oid>();
      for (const config of formats) {
        const rest = oids.filter((oid) => !good.has(oid));
        for (const oid of await goodOf(rest, config)) good.add(oid);
      }
      return good;
    },
    close: () => rm(scratch, { recursive: true, force: true }),
  };
}
